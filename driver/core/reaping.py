"""Calls that come once more when what stood in their way is found dead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import TypeVar

from driver.core.desire import surely_dead
from driver.core.reconciler import Reconciler
from driver.errors import Conflict, Exhausted

log = logging.getLogger(__name__)

Done = TypeVar("Done")


def unburied(
    core: Reconciler, act: Callable[[], Done], wanted: IPv4Interface | None = None
) -> Done:
    """Act; once more if what stood in the way died unheard.

    Docker with its own IPAM never tells of the endpoints it lost in a crash, and at once starts
    the containers anew with the same addresses and ports. `wanted`: an address that it gave to
    another endpoint.
    """
    try:
        return act()
    except (Conflict, Exhausted):
        if not _bury(core, wanted):
            raise
        return act()


def _bury(core: Reconciler, wanted: IPv4Interface | None) -> bool:
    """Drop what is certainly dead, and may be in a caller's way; return whether there was any.

    One look is enough with the lock: a host end never leaves this namespace.
    """
    with core.edit() as edit:
        dead = surely_dead(edit.state, core.links(), wanted)
        for endpoint in dead:
            log.info("endpoint %s has no sandbox any more: dropped", endpoint.id[:12])
            edit.drop(endpoint)
    return bool(dead)
