"""Which leases are peers of this host. Pure.

One bad lease removes no good one. After each change thousands are checked, so this is fast code.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from driver.flannel.documents import quoted
from driver.flannel.lease_types import ThisHost
from driver.flannel.peer_checks import LeaseCheck, LocalCheck
from driver.flannel.peer_index import PeerIndex
from driver.flannel.records import LeaseRecord
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
