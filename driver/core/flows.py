"""Which tracked flows a change of published ports makes wrong, and a firewall that forgets them.

The table translates a flow's first packet; the others follow what the kernel tracks of the flow.
So a client that keeps sending from one port would go on asking in vain after a port is published,
and go on reaching a container that has given the port up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from driver.model.firewall import Flows, PortMap
from driver.model.interfaces import Adapter, Resuming, Tracker
from driver.model.objects import HostObject, Plan
from driver.model.records import ANY

SEEN_REPLY, SRC_NAT, DST_NAT = 0x2, 0x10, 0x20  # bits of a flow's status


class Forgetful:
    """A firewall after whose changes the flows that went by the old state are forgotten."""

    def __init__(self, firewall: Adapter, tracker: Tracker) -> None:
        self.kinds = firewall.kinds
        self._firewall, self._tracker = firewall, tracker

    def observe(self) -> frozenset[HostObject]:
        """Return what the firewall has."""
        return self._firewall.observe()

    def apply(self, plan: Plan) -> None:
        """Carry out a plan, then forget; a packet in between finds the new state already.

        Errors: the firewall's.
        """
        self._firewall.apply(plan)
        if wrong := list(wrong_flows(plan)):
            self._tracker.forget(wrong)

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Have the firewall take over from an earlier run."""
        if isinstance(self._firewall, Resuming):
            self._firewall.resume(objects)

    def close(self) -> None:
        """Close the firewall."""
        self._firewall.close()


def wrong_flows(plan: Plan) -> Iterator[Flows]:
    """Yield the flows that are not as they would be if they began after the plan."""
    for old in [*plan.remove, *(old for old, _ in plan.change)]:
        if isinstance(old, PortMap):
            yield _to(old, target=old.target)
    for new in [*plan.add, *(new for _, new in plan.change)]:
        if isinstance(new, PortMap):
            yield _from_before(new)


def _from_before(port: PortMap) -> Flows:
    """Return what was sent to a port before it was published.

    Flows of UDP: those that went to the host itself, or that something else led elsewhere; one
    that leaves the host for a server with this port number has another source, and stays. A
    connection lives by what is tracked of it: only those go that were never answered, whose
    client still tries.
    """
    return _to(port, SRC_NAT if port.proto == "udp" else SEEN_REPLY | SRC_NAT | DST_NAT)


def _to(port: PortMap, without: int = 0, target: IPv4Address | None = None) -> Flows:
    ip = None if port.host_ip == ANY else port.host_ip
    return Flows(port.proto, port.host_port, ip, target, without)
