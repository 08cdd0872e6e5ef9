"""Which leases are peers of this host. No I/O.

One bad lease takes no good one along; thousands are looked at after each change, so it is quick.
Imports `flannel`, `flannel_config`, `model`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from driver.flannel import LeaseRecord
from driver.flannel_config import quoted
from driver.model import ANY, Overlay, Peer

NO_MAC = "00:00:00:00:00:00"
LOOPBACK, MULTICAST = 127, 224  # first bytes of addresses; behind multicast all is reserved


@dataclass(frozen=True, slots=True)
class Own:
    """What tells this host's lease from the others'. `mac`: None for a backend without one."""

    public_ip: IPv4Address
    mac: str | None
    subnet: IPv4Network | None = None


def sort_peers(
    records: Iterable[LeaseRecord], overlay: Overlay, own: Own
) -> tuple[frozenset[Peer], list[str]]:
    """Tell the peers from what cannot be one, which is skipped with a sentence each.

    Of several records for one subnet, or two that begin alike, and of several public IPs for one
    MAC, the one written last counts: its host is alive. But first those of the config's length.
    """
    problems: list[str] = []
    good: list[LeaseRecord] = []
    for record in records:
        if record.public_ip == own.public_ip and record.subnet == own.subnet:
            continue
        fault = _fault(record, overlay, own)
        if fault:
            problems.append(f"lease {quoted(record.key)} {fault}: skipped")
        else:
            good.append(record)
    length, peers = overlay.subnet_len, set[Peer]()
    starts: dict[IPv4Address, LeaseRecord] = {}
    homes: dict[str | None, LeaseRecord] = {}
    for record in sorted(good, key=lambda r: (r.subnet.prefixlen != length, -r.revision)):
        start = record.subnet.network_address
        first = starts.get(start) or homes.get(record.mac) or record
        if first.mac != record.mac or first.public_ip != record.public_ip:
            problems.append(_doubled(record, first))
            continue
        peers.add(record.peer)
        starts.setdefault(start, record)
        if record.mac is not None:
            homes[record.mac] = record
    return frozenset(peers), problems


def _doubled(record: LeaseRecord, first: LeaseRecord) -> str:
    alike = first.subnet.network_address == record.subnet.network_address
    what = "subnet" if alike else f"MAC {record.mac}"
    which = "later " if first.revision > record.revision else ""
    return (
        f"lease {quoted(record.key)} of {record.public_ip} has the {what} of the {which}"
        f"{quoted(first.key)} of {first.public_ip}: skipped"
    )


def _fault(record: LeaseRecord, overlay: Overlay, own: Own) -> str:
    """Say why a record is no peer of ours, "" when it is one."""
    return (
        _fault_of_place(record, overlay, own)
        or _fault_of_address(record, own)
        or _fault_of_backend(record, overlay, own)
    )


def _fault_of_place(record: LeaseRecord, overlay: Overlay, own: Own) -> str:
    if record.subnet.prefixlen == 0 and record.subnet6:
        return "has no IPv4 subnet"
    if own.subnet is not None and _overlap(own.subnet, record.subnet):
        if own.subnet == record.subnet:
            return f"gives our own subnet to {record.public_ip}"
        return f"overlaps our own subnet {own.subnet}"
    if record.subnet.prefixlen <= overlay.network.prefixlen or not _overlap(
        overlay.network, record.subnet
    ):
        return f"is not inside the Network {overlay.network}"
    return ""


def _overlap(one: IPv4Network, other: IPv4Network) -> bool:
    """Tell whether one of two has the other in it; `ipaddress` takes ten times as long."""
    free = one.max_prefixlen - min(one.prefixlen, other.prefixlen)
    return int(one.network_address) >> free == int(other.network_address) >> free


def _fault_of_address(record: LeaseRecord, own: Own) -> str:
    ip = record.public_ip
    if ip == own.public_ip:
        return f"has our own PublicIP {ip}"
    first = int(ip) >> 24
    if ip == ANY or first == LOOPBACK or first >= MULTICAST:
        return f"has the PublicIP {ip}, which is no host's"
    return ""


def _fault_of_backend(record: LeaseRecord, overlay: Overlay, own: Own) -> str:
    if record.backend != overlay.backend:
        return f"is of the backend {quoted(record.backend)}, the network's is {overlay.backend}"
    if overlay.backend != "vxlan":
        return ""
    if record.mac is None:
        return "has no VtepMAC"
    if record.mac == own.mac:
        return f"has our own VtepMAC {record.mac}"
    if record.mac == NO_MAC or int(record.mac[:2], 16) & 1:
        return f"has the VtepMAC {record.mac}, which is no host's"
    return ""
