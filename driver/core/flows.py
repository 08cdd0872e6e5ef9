"""Which tracked flows a change of the published ports makes wrong, and a host that forgets them.

The table translates a flow's first packet; the others follow what the kernel tracks of the flow.
So a client that keeps sending from one port would go on asking in vain after a port is published,
and go on reaching a container that has given the port up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from driver.core.firewall import Published, read_port
from driver.model.interfaces import Adapter, Resuming
from driver.model.objects import HostObject, Plan
from driver.model.records import ANY, Proto

SEEN_REPLY, SRC_NAT, DST_NAT = 0x2, 0x10, 0x20  # bits of a flow's status


@dataclass(frozen=True, slots=True)
class Flows:
    """The flows to a host port: to its address `ip`, None for any, answered by `target`, if given.

    And of those the ones whose status has none of the bits in `without`.
    Source: linux/netfilter/nf_conntrack_common.h.
    """

    proto: Proto
    port: int
    ip: IPv4Address | None
    target: IPv4Address | None = None
    without: int = 0


class Tracker(Protocol):
    """What the kernel tracks of flows."""

    def forget(self, wrong: Sequence[Flows]) -> None:
        """Delete these; what cannot be deleted is told in the log, it ends by itself."""


class Forgetful:
    """A firewall after whose changes the flows that went by the old state are forgotten."""

    def __init__(self, firewall: Adapter, tracker: Tracker) -> None:
        self.kinds = firewall.kinds
        self._firewall, self._tracker = firewall, tracker

    def observe(self) -> frozenset[HostObject]:
        """Give what the firewall has."""
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
        """Let go of the firewall."""
        self._firewall.close()


def wrong_flows(plan: Plan) -> Iterator[Flows]:
    """Give the flows that are not as they would be if they began after the plan."""
    for old in [*plan.remove, *(old for old, _ in plan.change)]:
        if was := read_port(old):
            yield _to(was, target=was.target)
    for new in [*plan.add, *(new for _, new in plan.change)]:
        if now := read_port(new):
            yield _from_before(now)


def _from_before(now: Published) -> Flows:
    """Give what was sent to a port before it was published.

    Flows of UDP: those that went to the host itself, or that something else led elsewhere; one
    that leaves the host for a server with this port number has another source, and stays. A
    connection lives by what is tracked of it: only those go that were never answered, whose
    client still tries.
    """
    return _to(now, SRC_NAT if now.mapping.proto == "udp" else SEEN_REPLY | SRC_NAT | DST_NAT)


def _to(port: Published, without: int = 0, target: IPv4Address | None = None) -> Flows:
    mapping = port.mapping
    ip = None if mapping.host_ip == ANY else mapping.host_ip
    return Flows(mapping.proto, mapping.host_port, ip, target, without)
