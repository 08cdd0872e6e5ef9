"""Calls that come once more when what stood in their way is found dead."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import TypeVar

from driver.errors import Conflict, Exhausted
from driver.reconcile import Reconciler

Done = TypeVar("Done")


def unburied(
    core: Reconciler, act: Callable[[], Done], wanted: IPv4Interface | None = None
) -> Done:
    """Act; once more if what stood in the way died unheard. `wanted`: see `Reconciler.bury`.

    Docker with its own IPAM never tells of the endpoints it lost in a crash, and at once starts
    the containers anew with the same addresses and ports.
    """
    try:
        return act()
    except (Conflict, Exhausted):
        if not core.bury(wanted):
            raise
        return act()
