"""Which leases are peers of this host. Pure.

One bad lease removes no good one. After each change thousands are checked, so this is fast code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from operator import attrgetter

from driver.flannel.lease_types import ThisHost
from driver.flannel.peer_checks import LeaseCheck, LocalCheck
from driver.flannel.records import LeaseRecord, quoted
from driver.model.prefixes import holds
from driver.model.records import Overlay, Peer

KNOWN, KNOWN_KEY, NEW = range(3)  # ranks: a peer as before; one with a new MAC; neither


def select_peers(
    records: Iterable[LeaseRecord],
    overlay: Overlay,
    host: ThisHost,
    before: frozenset[Peer] = frozenset(),
) -> tuple[frozenset[Peer], list[str]]:
    """Return the peers, and a sentence for each lease of another host that cannot be one.

    Of two leases that overlap, or that have one MAC but two public IPs, the peer of `before` stays,
    even if its host has written the lease again with another MAC or address. Of two new ones, that
    with the config's SubnetLen wins, then that written last, since its host is alive.
    A subnet larger than SubnetLen is a peer's only if it was one before SubnetLen changed.
    """
    problems: list[str] = []
    good: list[LeaseRecord] = []
    lease_check = LeaseCheck(overlay, host)
    for record in records:
        if record.public_ip == host.public_ip and record.subnet == host.subnet:
            continue
        if fault := lease_check.fault(record):
            problems.append(f"lease {quoted(record.key)} {fault}: skipped")
        else:
            good.append(record)
    peers, local_check = list[Peer](), LocalCheck(overlay, host)
    index = PeerIndex({record.numbers[1] for record in good}, overlay.network)
    for rank, ranked in enumerate(_ranked(good, overlay, before)):
        known = rank != NEW
        for record in ranked:
            fault = (
                local_check.fault(record.subnet, known=known)
                or ("" if known else local_check.fault_of_public_ip(record.public_ip))
                or index.conflict(record, known=known)
            )
            if fault:
                whose = f"lease {quoted(record.key)} of {record.public_ip}"
                problems.append(f"{whose} {fault}: skipped")
                continue
            peers.append(record.peer)
            index.add(record)
    return frozenset(peers), problems


def clear_of_local(
    peers: frozenset[Peer], overlay: Overlay | None, host: ThisHost
) -> frozenset[Peer]:
    """Return the peers that cover no address this host uses itself, such as its way to etcd."""
    check = LocalCheck(overlay, host) if overlay else None
    if not check:
        return peers
    bad = [p for p in peers if check.fault(p.subnet, known=True)]
    return peers.difference(bad) if bad else peers


def _ranked(
    records: list[LeaseRecord], overlay: Overlay, before: frozenset[Peer]
) -> tuple[list[LeaseRecord], ...]:
    """Return the records by rank; within a rank, the first of two that conflict wins."""
    objects = set(map(id, before))  # most are the very objects of the last time: fast to find
    same: list[LeaseRecord] = []
    rest: list[LeaseRecord] = []
    for record in sorted(records, key=attrgetter("revision"), reverse=True):
        is_same = id(record.peer) in objects or record.peer in before
        (same if is_same else rest).append(record)
    ranks = same, list[LeaseRecord](), list[LeaseRecord]()
    changed = {p.subnet: p for p in before.difference(r.peer for r in same)} if rest else {}
    for record in rest:
        old = changed.get(record.subnet)
        if old is None or (old.public_ip != record.public_ip and old.mac != record.mac):
            ranks[NEW].append(record)
        else:
            ranks[KNOWN if old.mac == record.mac else KNOWN_KEY].append(record)
    for rank in ranks:
        rank.sort(key=lambda record: record.numbers[1] != overlay.subnet_len)
    return ranks


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
