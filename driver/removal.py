"""Takes away what the plugin made on this host, for when it is removed. The state stays.

Containers' networks go before, by Docker: nothing here cuts what runs.
"""

from __future__ import annotations

from contextlib import closing, suppress

from driver.config import Basics
from driver.core.dataplane import Dataplane
from driver.errors import Conflict, HostError
from driver.flannel.etcd_source import DOCKER_OPTIONS
from driver.flannel.subnet_env import is_ours
from driver.host.firewall import iptables_variants
from driver.host.firewall.forward_gate import ForwardGates
from driver.host.journal import NAME, SqliteJournal
from driver.host.links import Links
from driver.host.lock import Lock
from driver.host.loopback import LoopbackGuards
from driver.host.overlay import OverlayAdapter
from driver.host.residents import Residents
from driver.model.firewall import ForwardGate
from driver.model.interfaces import Adapter
from driver.model.objects import Plan
from driver.wiring import clear_firewalls


def check_unused(basics: Basics) -> None:
    """Check that no network would lose its driver, whether the service runs or not.

    Errors: Conflict that counts them; StoreError if the state cannot be read.
    """
    if Lock(basics.state_dir).is_managed_plugins():
        return  # it goes on serving them
    with closing(Residents()) as residents:
        running = len(residents.occupied())
    file, known = basics.state_dir / NAME, 0
    if file.exists():
        with closing(SqliteJournal(file)) as journal:
            known = len(journal.load().networks)
    if known or running:
        raise Conflict(
            f"networks of this driver exist: {known}, with {running} running containers; remove "
            "them first: `docker network ls --filter driver=flannel` lists them, and "
            "`docker-flannel forget` gives up one that Docker no longer has"
        )


def take_down(basics: Basics) -> bool:
    """Remove links, routes, firewall and lease file; return False if the managed plugin has them.

    Errors: Conflict while networks exist or the service runs; HostError with all that failed.
    """
    check_unused(basics)
    lock = Lock(basics.state_dir)
    if lock.is_managed_plugins():
        return False
    lock.take()
    gates = [ForwardGate(variant, bridged=False) for variant in iptables_variants.variants()]
    adapters: list[Adapter] = [OverlayAdapter(), Links(), LoopbackGuards(), ForwardGates()]
    with closing(Dataplane(adapters)) as dataplane:
        plan = Plan(remove=(*dataplane.observe(), *gates))
        errors = [str(error) for error in dataplane.take_away(plan)]
    errors += clear_firewalls()
    if is_ours(basics.subnet_file, None, alone=False):
        for file in (basics.subnet_file, basics.subnet_file.with_name(DOCKER_OPTIONS)):
            with suppress(FileNotFoundError):
                file.unlink()
    if errors:
        raise HostError("; ".join(errors))
    return True
