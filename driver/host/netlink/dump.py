"""Lists the addresses, routes, neighbours and FDB entries of a network namespace."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import NamedTuple

from driver.host.netlink import constants as nl
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import attributes, integer, ipv4
from driver.host.netlink.encoder import u32
from driver.model.records import ANY


class AddressEntry(NamedTuple):
    """An IPv4 address of a link; `remote` is the other end's where there is one, else `ip`."""

    link: int
    ip: IPv4Address
    length: int
    remote: IPv4Address
    flags: int
    scope: int

    @property
    def interface(self) -> IPv4Interface:
        """The address with its length."""
        return IPv4Interface((self.ip, self.length))

    @property
    def prefixes(self) -> set[IPv4Network]:
        """What it reaches and owns."""
        reached = IPv4Network((self.remote, self.length), strict=False)
        return {reached} if self.ip in reached else {reached, IPv4Network(self.ip)}


class RouteEntry(NamedTuple):
    """An IPv4 route. `hops`: the links it goes out of, each with its gateway, 0.0.0.0 for IPv6's.

    `source`: the preferred source address, 0.0.0.0 for none. `onlink`: the gateway counts as on the
    link though no prefix says so.
    """

    dst: IPv4Network
    table: int
    scope: int
    metric: int
    hops: tuple[tuple[int, IPv4Address | None], ...]
    source: IPv4Address
    onlink: bool


def addresses(channel: Channel, index: int = 0) -> Iterator[AddressEntry]:
    """`ip -4 address show`, of one link if its index is given."""
    asked = nl.IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, index)
    for body in channel.dump(nl.RTM_GETADDR, asked):
        _, length, flags, scope, link = nl.IFADDRMSG.unpack_from(body)
        found = attributes(body, nl.IFADDRMSG.size)
        local = found.get(nl.IFA_LOCAL) or found[nl.IFA_ADDRESS]
        ip, remote = IPv4Address(local), IPv4Address(found.get(nl.IFA_ADDRESS, local))
        yield AddressEntry(link, ip, length, remote, flags, scope)


def routes(
    channel: Channel, kind: int, *, table: int = 0, ours: bool = False
) -> Iterator[RouteEntry]:
    """`ip -4 route show` of one type: those of our protocol, maybe thousands, or all others."""
    protocol = nl.PROTOCOL if ours else 0
    asked = nl.RTMSG.pack(socket.AF_INET, 0, 0, 0, table, protocol, 0, kind, 0)
    # ENOENT: a table exists from its first route on
    for body in channel.dump(nl.RTM_GETROUTE, asked, fine=errno.ENOENT):
        if ours or body[nl.RTMSG_PROTOCOL] != nl.PROTOCOL:
            yield read_route(body)


def read_route(body: bytes) -> RouteEntry:
    """Decode a route."""
    _, length, _, _, table, _, scope, _, flags = nl.RTMSG.unpack_from(body)
    found = attributes(body, nl.RTMSG.size)
    hops = list(_hops(found.get(nl.RTA_MULTIPATH, b"")))
    if out := integer(found.get(nl.RTA_OIF, b"")):
        hops.append((out, _gateway(found)))
    dst = IPv4Network((found.get(nl.RTA_DST, bytes(4)), length))
    metric = integer(found.get(nl.RTA_PRIORITY, b""))
    source = ipv4(found.get(nl.RTA_PREFSRC, b""))
    onlink = bool(flags & nl.RTNH_F_ONLINK)
    return RouteEntry(dst, table, scope, metric, tuple(hops), source, onlink)


def _hops(data: bytes) -> Iterator[tuple[int, IPv4Address | None]]:
    while len(data) >= nl.RTNEXTHOP.size:
        length, link = nl.RTNEXTHOP.unpack_from(data)
        yield link, _gateway(attributes(data[:length], nl.RTNEXTHOP.size))
        data = data[(length + 3) & ~3 :]


def _gateway(found: dict[int, bytes]) -> IPv4Address | None:
    if nl.RTA_GATEWAY in found:
        return IPv4Address(found[nl.RTA_GATEWAY])
    return ANY if nl.RTA_VIA in found else None


def neighbours(channel: Channel, index: int) -> Iterator[tuple[IPv4Address, str]]:
    """`ip -4 neigh show dev LINK nud permanent`: address and MAC of each."""
    asked = nl.NDMSG.pack(socket.AF_INET, 0, 0, 0, 0) + u32(nl.NDA_IFINDEX, index)
    return _permanent(channel, asked)


def fdb(channel: Channel, index: int) -> Iterator[tuple[IPv4Address, str]]:
    """`bridge fdb show dev LINK`, what is permanent: destination and MAC of each."""
    return _permanent(channel, nl.NDMSG.pack(nl.AF_BRIDGE, index, 0, 0, 0))


def _permanent(channel: Channel, asked: bytes) -> Iterator[tuple[IPv4Address, str]]:
    for body in channel.dump(nl.RTM_GETNEIGH, asked, fine=errno.ENODEV):
        if nl.NDMSG.unpack_from(body)[2] & nl.NUD_PERMANENT:
            found = attributes(body, nl.NDMSG.size)
            yield ipv4(found.get(nl.NDA_DST, b"")), found.get(nl.NDA_LLADDR, b"").hex(":")
