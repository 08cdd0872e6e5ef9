"""What peers claim, indexed to find what conflicts with a further lease. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network

from driver.flannel.documents import quoted
from driver.flannel.records import LeaseRecord
from driver.model.prefixes import holds


@dataclass(slots=True)
class _Level:
    """What the peers claim, by prefix of one length. A prefix is its address >> `shift`."""

    shift: int
    equal: dict[int, LeaseRecord] = field(default_factory=dict)  # the subnet is the prefix
    inside: dict[int, list[LeaseRecord]] = field(default_factory=dict)  # it is longer
    hosts: dict[int, LeaseRecord] = field(default_factory=dict)  # the PublicIP is in the prefix


class PeerIndex:
    """The peers so far. A look-up takes as many steps as subnets have different lengths."""

    def __init__(self, lengths: set[int], network: IPv4Network) -> None:
        """Take the prefix lengths of all leases to come, and the Network."""
        self._shift = 32 - network.prefixlen
        self._bits = int(network.network_address) >> self._shift
        self._levels = {n: _Level(32 - n) for n in sorted(lengths)}
        self._outer = {k: [self._levels[n] for n in self._levels if n < k] for k in lengths}
        self._by_mac: dict[str | None, LeaseRecord] = {}

    def add(self, record: LeaseRecord) -> None:
        """Add a peer."""
        start, length, ip = record.numbers
        own = self._levels[length]
        own.equal.setdefault(start >> own.shift, record)
        for level in self._outer[length]:
            level.inside.setdefault(start >> level.shift, []).append(record)
        if ip >> self._shift == self._bits:
            for level in self._levels.values():
                level.hosts.setdefault(ip >> level.shift, record)
        if record.mac is not None:
            self._by_mac.setdefault(record.mac, record)

    def conflict(self, record: LeaseRecord, *, known: bool) -> str:
        """Return what a lease claims that another host's peer has, "" if nothing.

        A peer `known` from before may cover public IPs.
        """
        start, length, _ = record.numbers
        own = self._levels[length]
        peer = own.equal.get(start >> own.shift)
        if peer and peer.identity != record.identity:
            return _overlapping(record, peer)
        for level in self._outer[length]:
            peer = level.equal.get(start >> level.shift)
            if peer and peer.identity != record.identity:
                return _overlapping(record, peer)
        for peer in own.inside.get(start >> own.shift, ()):
            if peer.identity != record.identity:
                return _overlapping(record, peer)
        if (peer := self._by_mac.get(record.mac)) and peer.public_ip != record.public_ip:
            return f"has the MAC {record.mac} of the {_named(record, peer)}"
        return "" if known else self._public_ip_conflict(record)

    def _public_ip_conflict(self, record: LeaseRecord) -> str:
        """Return how packets to a host would go into the overlay instead, "" if they do not."""
        start, length, ip = record.numbers
        own = self._levels[length]
        if host := own.hosts.get(start >> own.shift):
            return f"covers the PublicIP of the {_named(record, host)}"
        if ip >> self._shift != self._bits:
            return ""
        if holds(record.subnet, record.public_ip):
            return "covers its own PublicIP"
        for level in self._levels.values():
            if peer := level.equal.get(ip >> level.shift):
                return f"has a PublicIP in the {_named(record, peer)}"
        return ""


def _overlapping(record: LeaseRecord, peer: LeaseRecord) -> str:
    alike = peer.subnet.network_address == record.subnet.network_address
    return f"{'has the subnet of' if alike else 'overlaps'} the {_named(record, peer)}"


def _named(record: LeaseRecord, peer: LeaseRecord) -> str:
    later = "later " * (peer.revision > record.revision)
    return f"{later}{quoted(peer.key)} of {peer.public_ip}"
