"""Finds the interface to the underlay as flanneld does: by name, by address, by default route.

Imports only `events`. Source: linux/{if_addr,rtnetlink}.h; flannel pkg/ipmatch.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from driver import events
from driver.errors import Unavailable
from driver.events import Channel, Link, attributes, integer
from driver.model import External

GLOBAL, DEPRECATED, PERMANENT = 0, 0x20, 0x80  # a scope and two flags of addresses
REMOTE, LOCAL = 1, 2  # attributes of an address,
DST, OUT, GATEWAY, PRIORITY, VIA = 1, 4, 5, 6, 18  # of a route


class _Address(NamedTuple):
    """`worth`: the smaller, the more the address is meant for others."""

    link: int
    ip: IPv4Address
    worth: tuple[bool, bool]


class _Route(NamedTuple):
    """A route of somebody else's in the main table, out of one link."""

    link: int
    dst: IPv4Network
    near: bool
    metric: int


class Underlay:
    """The host's addresses and routes, in the namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._channel = Channel()

    def close(self) -> None:
        """Give the socket back."""
        self._channel.close()

    def external(self, iface: str | None, public_ip: IPv4Address | None) -> External:
        """Find the interface that `iface` names, by its name or one of its addresses.

        Without `iface`, the one that has `public_ip`; without either, that of the default route.
        `onlink` is what this interface reaches without a gateway.
        Errors: Unavailable.
        """
        links, addresses, routes = self._channel.links(), self._addresses(), self._routes()
        if iface:
            link, ip = _named(iface, links, addresses)
        elif public_ip:
            link, ip = _holder(public_ip, "FLANNELD_PUBLIC_IP", links, addresses)
        else:
            link, ip = _default(routes, links), None
        if ip is None:
            own = sorted((a for a in addresses if a.link == link.number), key=lambda a: a.worth)
            if not own:
                raise Unavailable(f"interface {link.name} to the underlay has no IPv4 address")
            ip = own[0].ip
        near = {r.dst for r in routes if r.near and r.link == link.number}
        return External(link.name, ip, link.mtu, tuple(sorted(near)))

    def _addresses(self) -> list[_Address]:
        found = []
        asked = events.ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)
        for body in self._channel.ask(events.GETADDR, asked, events.DUMP):
            _, _, flags, scope, link = events.ADDRESS.unpack_from(body)
            about = attributes(body, events.ADDRESS.size)
            if not flags & DEPRECATED:
                ip = IPv4Address(about.get(LOCAL) or about[REMOTE])
                found.append(_Address(link, ip, (scope != GLOBAL, not flags & PERMANENT)))
        return found

    def _routes(self) -> list[_Route]:
        found = []
        table, kind = events.MAIN_TABLE, events.UNICAST
        asked = events.ROUTE.pack(socket.AF_INET, 0, 0, 0, table, 0, 0, kind, 0)
        for body in self._channel.ask(events.GETROUTE, asked, events.DUMP):
            _, length, _, _, _, protocol, scope, _, _ = events.ROUTE.unpack_from(body)
            if protocol != events.PROTOCOL:
                about = attributes(body, events.ROUTE.size)
                dst = IPv4Network((about.get(DST, bytes(4)), length))
                near = scope == events.ON_LINK and not {GATEWAY, VIA} & about.keys()
                link, metric = (integer(about.get(k, b"")) for k in (OUT, PRIORITY))
                found.append(_Route(link, dst, near, metric))
        return found


def _named(
    iface: str, links: dict[int, Link], addresses: list[_Address]
) -> tuple[Link, IPv4Address | None]:
    for link in links.values():
        if link.name == iface:
            return link, None
    try:
        ip = IPv4Address(iface)
    except ValueError:
        raise Unavailable(f"FLANNELD_IFACE {iface} is no interface of this host") from None
    return _holder(ip, "FLANNELD_IFACE", links, addresses)


def _holder(
    ip: IPv4Address, setting: str, links: dict[int, Link], addresses: list[_Address]
) -> tuple[Link, IPv4Address]:
    for address in addresses:
        if address.ip == ip and address.link in links:
            return links[address.link], ip
    hint = "" if setting == "FLANNELD_IFACE" else "; name the interface with FLANNELD_IFACE"
    raise Unavailable(f"{setting} {ip} is on no interface of this host{hint}")


def _default(routes: list[_Route], links: dict[int, Link]) -> Link:
    ways = [r for r in routes if r.dst.prefixlen == 0 and r.link in links]
    if not ways:
        raise Unavailable("this host has no default route; name an interface with FLANNELD_IFACE")
    return links[min(ways, key=lambda r: r.metric).link]
