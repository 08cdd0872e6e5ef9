"""Lists the host's addresses and routes, decoding only what the plugin needs.

Source: linux/{if_addr,rtnetlink}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import NamedTuple

from driver.host.netlink.channel import (
    ADDRESS,
    DUMP,
    GETADDR,
    GETROUTE,
    PROTOCOL,
    ROUTE,
    Channel,
    attributes,
    integer,
)
from driver.model.records import ANY

REMOTE, LOCAL = 1, 2  # attributes of an address,
DST, OUT, GATEWAY, PRIORITY, HOPS, VIA = 1, 4, 5, 6, 9, 18  # of a route
_HOP = struct.Struct("=H2xi")  # of a route with several: its length, and the link
_PROTOCOL = 21  # the byte of a route that says whose it is


class Address(NamedTuple):
    """An IPv4 address of a link; `remote` is the other end's where there is one, else `ip`."""

    link: int
    ip: IPv4Address
    length: int
    remote: IPv4Address
    flags: int
    scope: int

    @property
    def interface(self) -> IPv4Interface:
        """Give the address with its length."""
        return IPv4Interface((self.ip, self.length))

    @property
    def prefixes(self) -> set[IPv4Network]:
        """Give what is reached or owned by it."""
        reached = IPv4Network((self.remote, self.length), strict=False)
        return {reached} if self.ip in reached else {reached, IPv4Network(self.ip)}


class Route(NamedTuple):
    """An IPv4 route. `hops`: the links it goes out of, each with the gateway, 0.0.0.0 if IPv6's."""

    dst: IPv4Network
    table: int
    scope: int
    metric: int
    hops: tuple[tuple[int, IPv4Address | None], ...]


def addresses(channel: Channel, link: int = 0) -> Iterator[Address]:
    """`ip -4 address show`, of one link if its index is given."""
    asked = ADDRESS.pack(socket.AF_INET, 0, 0, 0, link)
    for body in channel.ask(GETADDR, asked, DUMP):
        _, length, flags, scope, link = ADDRESS.unpack_from(body)
        found = attributes(body, ADDRESS.size)
        local = found.get(LOCAL) or found[REMOTE]
        ip, remote = IPv4Address(local), IPv4Address(found.get(REMOTE, local))
        yield Address(link, ip, length, remote, flags, scope)


def routes(channel: Channel, kind: int, *, table: int = 0, protocol: int = 0) -> Iterator[Route]:
    """`ip -4 route show`, of one type; of ours, which may be thousands, only if asked for."""
    asked = ROUTE.pack(socket.AF_INET, 0, 0, 0, table, protocol, 0, kind, 0)
    for body in channel.ask(GETROUTE, asked, DUMP):
        if protocol or body[_PROTOCOL] != PROTOCOL:
            yield _route(body)


def _route(body: bytes) -> Route:
    _, length, _, _, table, _, scope, _, _ = ROUTE.unpack_from(body)
    found = attributes(body, ROUTE.size)
    hops = list(_hops(found.get(HOPS, b"")))
    if out := integer(found.get(OUT, b"")):
        hops.append((out, _gateway(found)))
    dst = IPv4Network((found.get(DST, bytes(4)), length))
    return Route(dst, table, scope, integer(found.get(PRIORITY, b"")), tuple(hops))


def _hops(data: bytes) -> Iterator[tuple[int, IPv4Address | None]]:
    while len(data) >= _HOP.size:
        length, link = _HOP.unpack_from(data)
        yield link, _gateway(attributes(data[:length], _HOP.size))
        data = data[(length + 3) & ~3 :]


def _gateway(found: dict[int, bytes]) -> IPv4Address | None:
    if GATEWAY in found:
        return IPv4Address(found[GATEWAY])
    return ANY if VIA in found else None
