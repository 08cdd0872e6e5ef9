"""Which leases are peers of this host. No I/O.

One bad lease takes no good one along; thousands are looked at after each change, so it is quick.
Imports `flannel`, `flannel_config`, `prefixes` and nouns.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from operator import attrgetter

from driver.flannel.lease_types import ThisHost
from driver.flannel.network_config import quoted
from driver.flannel.records import LeaseRecord
from driver.model.prefixes import holds, overlap, parts
from driver.model.records import Overlay, Peer

NO_MAC = "00:00:00:00:00:00"
LOOPBACK, MULTICAST = 127, 224  # first bytes of addresses; behind multicast all is reserved
STAYS, KEY_STAYS, NEW = range(3)  # ranks: a peer as it was; under its key with a new MAC; neither


def sort_peers(
    records: Iterable[LeaseRecord],
    overlay: Overlay,
    own: ThisHost,
    before: frozenset[Peer] = frozenset(),
) -> tuple[frozenset[Peer], list[str]]:
    """Tell the peers from what cannot be one, which is skipped with a sentence each.

    Of two leases that overlap, or have one MAC but two public IPs, the one stays that was a peer
    `before`, also if its host has written it again with another MAC or address. Of two others,
    one of the config's length counts, and then the one written last: its host is alive.
    A lease larger than SubnetLen allows is no peer, unless it was one before SubnetLen changed.
    """
    problems: list[str] = []
    good: list[LeaseRecord] = []
    limits = _Limits(overlay, own)
    for record in records:
        if record.public_ip == own.public_ip and record.subnet == own.subnet:
            continue
        fault = limits.fault(record)
        if fault:
            problems.append(f"lease {quoted(record.key)} {fault}: skipped")
        else:
            good.append(record)
    peers, ground = list[Peer](), _Ground(overlay, own)
    taken = _Taken({record.numbers[1] for record in good}, overlay.network)
    for rank, ranked in enumerate(_ranked(good, overlay, before)):
        stays = rank != NEW
        for record in ranked:
            fault = (
                ground.fault(record.subnet, stays=stays)
                or ("" if stays else ground.fault_of_host(record.public_ip))
                or taken.fault(record, stays=stays)
            )
            if fault:
                who = f"lease {quoted(record.key)} of {record.public_ip}"
                problems.append(f"{who} {fault}: skipped")
                continue
            peers.append(record.peer)
            taken.put(record)
    return frozenset(peers), problems


def clear_of_local(
    peers: frozenset[Peer], overlay: Overlay | None, own: ThisHost
) -> frozenset[Peer]:
    """Leave out the peers that cover what this host uses itself: it may be the way to etcd."""
    ground = _Ground(overlay, own) if overlay else None
    if not ground:
        return peers
    bad = [p for p in peers if ground.fault(p.subnet, stays=True)]
    return peers.difference(bad) if bad else peers


def _ranked(
    records: list[LeaseRecord], overlay: Overlay, before: frozenset[Peer]
) -> tuple[list[LeaseRecord], ...]:
    """Sort the records by whether they were a peer before, and which of two then counts."""
    objects = set(map(id, before))  # mostly the same ones as the last time, which is quick to see
    stay: list[LeaseRecord] = []
    rest: list[LeaseRecord] = []
    for record in sorted(records, key=attrgetter("revision"), reverse=True):
        same = id(record.peer) in objects or record.peer in before
        (stay if same else rest).append(record)
    found = stay, list[LeaseRecord](), list[LeaseRecord]()
    changed = {p.subnet: p for p in before.difference(r.peer for r in stay)} if rest else {}
    for record in rest:
        old = changed.get(record.subnet)
        if old is None or (old.public_ip != record.public_ip and old.mac != record.mac):
            found[NEW].append(record)
        else:
            found[STAYS if old.mac == record.mac else KEY_STAYS].append(record)
    for part in found:
        part.sort(key=lambda record: record.numbers[1] != overlay.subnet_len)
    return found


class _Limits:
    """What no lease of another host can be, whatever else there is."""

    def __init__(self, overlay: Overlay, own: ThisHost) -> None:
        self._overlay, self._own, self._ip = overlay, own, int(own.public_ip)
        self._length = overlay.network.prefixlen
        self._shift = 32 - self._length
        self._bits = int(overlay.network.network_address) >> self._shift

    def fault(self, record: LeaseRecord) -> str:
        """Say why a lease is no peer's, "" if it may be one's."""
        return self._of_place(record) or self._of_address(record) or self._of_backend(record)

    def _of_place(self, record: LeaseRecord) -> str:
        start, length, _ = record.numbers
        if length == 0 and record.subnet6:
            return "has no IPv4 subnet"
        own = self._own.subnet
        if own is not None and overlap(own, record.subnet):
            if own == record.subnet:
                return f"gives our own subnet to {record.public_ip}"
            return f"overlaps our own subnet {own}"
        if length <= self._length or start >> self._shift != self._bits:
            return f"is not inside the Network {self._overlay.network}"
        return ""

    def _of_address(self, record: LeaseRecord) -> str:
        ip = record.numbers[2]
        if ip == self._ip:
            return f"has our own PublicIP {record.public_ip}"
        first = ip >> 24
        if ip == 0 or first == LOOPBACK or first >= MULTICAST:
            return f"has the PublicIP {record.public_ip}, which is no host's"
        own = self._own.subnet
        if own is not None and ip >> self._shift == self._bits and holds(own, record.public_ip):
            return f"has the PublicIP {record.public_ip}, which is in our own subnet"
        return ""

    def _of_backend(self, record: LeaseRecord) -> str:
        overlay, mac = self._overlay, record.mac
        if record.backend != overlay.backend:
            theirs = quoted(record.backend)
            return f"is of the backend {theirs}, the network's is {overlay.backend}"
        if overlay.backend != "vxlan":
            return ""
        if mac is None:
            return "has no VtepMAC"
        if mac == self._own.mac:
            return f"has our own VtepMAC {mac}"
        if mac == NO_MAC or int(mac[:2], 16) & 1:
            return f"has the VtepMAC {mac}, which is no host's"
        return ""


class _Ground:
    """What this host uses itself, as far as it concerns the Network.

    A prefix on the link that has the whole Network in it is how the administrator has chosen the
    Network, and says nothing about one lease.
    """

    def __init__(self, overlay: Overlay, own: ThisHost) -> None:
        self._network, self._longest = overlay.network, overlay.subnet_len
        self._among = holds(overlay.network, own.public_ip)
        self._onlink = parts(overlay.network, own.local.onlink)
        self._places = [(ip, w) for ip, w in own.local.places if holds(overlay.network, ip)]
        alone = [IPv4Network(ip) for ip, _ in self._places]
        spans = list(collapse_addresses([*self._onlink, *alone]))
        self._firsts = [int(span.network_address) for span in spans]
        self._lasts = [int(span.broadcast_address) for span in spans]

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def fault(self, subnet: IPv4Network, *, stays: bool) -> str:
        """Say why a subnet can be no peer's, "" if it can.

        One that `stays` may have in it what the host reaches by a longer prefix all the same.
        """
        length = subnet.prefixlen
        if length < self._longest and not stays:
            return f"is larger than the config's SubnetLen, /{self._longest}, allows"
        first = int(subnet.network_address)
        at = bisect(self._firsts, first + (1 << 32 - length) - 1) - 1
        if at < 0 or self._lasts[at] < first:
            return ""
        near = [p for p in self._onlink if overlap(p, subnet)]
        longer = [p for p in near if p.prefixlen > length]
        for prefix in near:
            if not (stays and prefix in longer):
                return f"overlaps {prefix}, which this host reaches directly or owns"
        for ip, what in self._places:
            if holds(subnet, ip) and not (stays and any(holds(p, ip) for p in longer)):
                return f"covers {ip}, {what}"
        return ""

    def fault_of_host(self, ip: IPv4Address) -> str:
        """Say whether a host claims to be where only containers are.

        The way to it would be the default route, which then would have to stay open for all.
        """
        if self._among or not holds(self._network, ip) or any(holds(p, ip) for p in self._onlink):
            return ""
        return f"has the PublicIP {ip}, which is inside the Network, where this host's is not"


@dataclass(slots=True)
class _Level:
    """What the peers have by prefixes of one length, which are numbers without the last bits."""

    shift: int
    at: dict[int, LeaseRecord] = field(default_factory=dict)  # a subnet of this length
    inside: dict[int, list[LeaseRecord]] = field(default_factory=dict)  # longer ones in a prefix
    hosts: dict[int, LeaseRecord] = field(default_factory=dict)  # a PublicIP in a prefix


class _Taken:
    """What the peers so far have, looked up by prefix in no more steps than there are lengths."""

    def __init__(self, lengths: set[int], network: IPv4Network) -> None:
        self._shift = 32 - network.prefixlen
        self._bits = int(network.network_address) >> self._shift
        self._levels = {n: _Level(32 - n) for n in sorted(lengths)}
        self._outer = {k: [self._levels[n] for n in self._levels if n < k] for k in lengths}
        self._homes: dict[str | None, LeaseRecord] = {}  # by MAC

    def put(self, record: LeaseRecord) -> None:
        """Add a peer."""
        start, length, ip = record.numbers
        own = self._levels[length]
        own.at.setdefault(start >> own.shift, record)
        for level in self._outer[length]:
            level.inside.setdefault(start >> level.shift, []).append(record)
        if ip >> self._shift == self._bits:
            for level in self._levels.values():
                level.hosts.setdefault(ip >> level.shift, record)
        if record.mac is not None:
            self._homes.setdefault(record.mac, record)

    def fault(self, record: LeaseRecord, *, stays: bool) -> str:
        """Say what of a peer's a lease claims for another host, "" if nothing."""
        start, length, _ = record.numbers
        own = self._levels[length]
        first = own.at.get(start >> own.shift)
        if first and _another(first, record):
            return _doubled(record, first)
        for level in self._outer[length]:
            first = level.at.get(start >> level.shift)
            if first and _another(first, record):
                return _doubled(record, first)
        for first in own.inside.get(start >> own.shift, ()):
            if _another(first, record):
                return _doubled(record, first)
        if (first := self._homes.get(record.mac)) and first.public_ip != record.public_ip:
            return f"has the MAC {record.mac} of the {_named(record, first)}"
        return "" if stays else self._fault_of_host(record)

    def _fault_of_host(self, record: LeaseRecord) -> str:
        """Say whether packets to a host would go into the overlay instead."""
        start, length, ip = record.numbers
        own = self._levels[length]
        if host := own.hosts.get(start >> own.shift):
            return f"covers the PublicIP of the {_named(record, host)}"
        if ip >> self._shift != self._bits:
            return ""
        if holds(record.subnet, record.public_ip):
            return "covers its own PublicIP"
        for level in self._levels.values():
            if first := level.at.get(ip >> level.shift):
                return f"has a PublicIP in the {_named(record, first)}"
        return ""


def _another(one: LeaseRecord, other: LeaseRecord) -> bool:
    return one.public_ip != other.public_ip or one.mac != other.mac


def _doubled(record: LeaseRecord, first: LeaseRecord) -> str:
    alike = first.subnet.network_address == record.subnet.network_address
    return f"{'has the subnet of' if alike else 'overlaps'} the {_named(record, first)}"


def _named(record: LeaseRecord, first: LeaseRecord) -> str:
    which = "later " if first.revision > record.revision else ""
    return f"{which}{quoted(first.key)} of {first.public_ip}"
