"""Which subnets this host may lease: those the network config allows that are free. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from itertools import islice

from driver.errors import BadRecord
from driver.flannel.etcd.registry import Entry
from driver.flannel.records import LeaseRecord, ParseCache, read_key
from driver.model.prefixes import overlap, parts
from driver.model.records import Overlay

CHOICES = 100  # free subnets to choose from, so that hosts seldom pick the same one


class AllowedSubnets:
    """The subnets of the config that overlap none of this host's LANs.

    A LAN that contains the whole Network does not count: the administrator chose the Network so.
    Pass no LANs for a host whose subnet is in use: it keeps that subnet.
    """

    def __init__(self, overlay: Overlay, lans: tuple[IPv4Network, ...]) -> None:
        self.overlay, self.lans = overlay, parts(overlay.network, lans)

    def __contains__(self, subnet: IPv4Network) -> bool:
        return compatible(self.overlay, subnet) and not any(overlap(n, subnet) for n in self.lans)

    def free(self, taken: Iterable[IPv4Network]) -> list[IPv4Network]:
        """Return the first CHOICES that overlap no taken subnet."""
        return list(islice(free_subnets(self.overlay, [*taken, *self.lans]), CHOICES))


def compatible(overlay: Overlay, subnet: IPv4Network) -> bool:
    """Whether the config allows a host to lease a subnet."""
    return (
        subnet.prefixlen == overlay.subnet_len
        and overlay.subnet_min <= subnet.network_address <= overlay.subnet_max
    )


def preferred(host: IPv4Address, free: Sequence[IPv4Network]) -> IPv4Network:
    """Return the free subnet that suits a public IP best.

    Each host ranks subnets in an order of its own, always the same one. So hosts seldom want the
    same subnet, and a host that comes back after its lease has ended gets its subnet again if that
    is free.
    """
    return max(free, key=lambda subnet: sha256(f"{host} {subnet}".encode()).digest())


def taken_subnets(
    entries: Iterable[Entry], overlay: Overlay, cache: ParseCache
) -> list[IPv4Network]:
    """List the subnets that keys name, whatever their values say.

    A key that names the whole Network or more takes nothing: it would leave no subnet free.
    """
    taken, least = [], overlay.network.prefixlen
    for entry in entries:
        found = cache.get(entry)
        try:
            subnet = found.subnet if isinstance(found, LeaseRecord) else read_key(entry.key)[0]
        except BadRecord:
            continue
        if subnet.prefixlen > least or not overlay.network.subnet_of(subnet):
            taken.append(subnet)
    return taken


def free_subnets(overlay: Overlay, taken: Iterable[IPv4Network]) -> Iterator[IPv4Network]:
    """Yield, in order, the config's subnets that overlap no taken one."""
    size = 1 << (overlay.network.max_prefixlen - overlay.subnet_len)
    blocked = sorted((int(n.network_address), int(n.broadcast_address)) for n in taken)
    at, end, index = int(overlay.subnet_min), int(overlay.subnet_max), 0
    while at <= end:
        while index < len(blocked) and blocked[index][1] < at:
            index += 1
        if index < len(blocked) and blocked[index][0] < at + size:
            at = blocked[index][1] // size * size + size  # subnets begin at multiples of their size
            continue
        yield IPv4Network((at, overlay.subnet_len))
        at += size
