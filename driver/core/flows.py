"""Find the tracked flows that a change of published ports makes wrong, and forget them.

The firewall translates a flow's first packet; the kernel then treats all others like that one. So
a client that keeps sending from one port would not reach a port published meanwhile, and would
still reach a container that no longer has the port.
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
    """A firewall that, after each change, forgets the flows which follow the old state."""

    def __init__(self, firewall: Adapter, tracker: Tracker) -> None:
        self.kinds = firewall.kinds
        self._firewall, self._tracker = firewall, tracker

    def observe(self) -> frozenset[HostObject]:
        """Return what the firewall has."""
        return self._firewall.observe()

    def apply(self, plan: Plan) -> None:
        """Apply a plan, then forget; packets in between follow the new state already.

        Errors: the firewall's.
        """
        self._firewall.apply(plan)
        if wrong := list(wrong_flows(plan)):
            self._tracker.forget(wrong)

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Let the firewall take over from an earlier run."""
        if isinstance(self._firewall, Resuming):
            self._firewall.resume(objects)

    def close(self) -> None:
        """Close the firewall."""
        self._firewall.close()


def wrong_flows(plan: Plan) -> Iterator[Flows]:
    """Yield the flows that would be treated differently if they began after the plan."""
    for old in plan.old():
        if isinstance(old, PortMap):
            yield _to(old, target=old.target)
    for new in plan.new():
        if isinstance(new, PortMap):
            yield _from_before(new)


def _from_before(port: PortMap) -> Flows:
    """Return the flows to a port that began before it was published.

    UDP: flows to the host itself, or redirected by something else; a flow that leaves this host for
    a server's port of this number has its source translated, and stays. Other protocols: only
    unanswered attempts, since a connection breaks when its tracked flow is deleted.
    """
    return _to(port, SRC_NAT if port.proto == "udp" else SEEN_REPLY | SRC_NAT | DST_NAT)


def _to(port: PortMap, without: int = 0, target: IPv4Address | None = None) -> Flows:
    ip = None if port.host_ip == ANY else port.host_ip
    return Flows(port.proto, port.host_port, ip, target, without)
