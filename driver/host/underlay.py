"""Finds the interface to the underlay as flanneld does: by name, by address, by default route.

Pure. Source: flannel pkg/ipmatch.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import NamedTuple

from driver.errors import Unavailable
from driver.host.netlink import constants as nl
from driver.host.netlink.decoder import Link
from driver.host.netlink.dump import AddressEntry, RouteEntry
from driver.host.surroundings import Surroundings
from driver.model.facts import External


class _Way(NamedTuple):
    """Somebody else's route in the main table, out of one link."""

    route: RouteEntry
    link: int
    gateway: IPv4Address | None

    @property
    def near(self) -> bool:
        """Whether what it leads to is on the link."""
        return self.route.scope == nl.RT_SCOPE_LINK and self.gateway is None


def external(found: Surroundings, iface: str | None, public_ip: IPv4Address | None) -> External:
    """Find the interface that `iface` names, by its name or one of its addresses.

    Without `iface`, the one that has `public_ip`; without either, that of the default route.
    `onlink` is what this interface reaches without a gateway.
    Errors: Unavailable.
    """
    links = found.links
    usable = [a for a in found.addresses if not a.flags & nl.IFA_F_DEPRECATED]
    main = [route for route in found.routes if route.table == nl.RT_TABLE_MAIN]
    ways = [_Way(route, *route.hops[0]) for route in main if len(route.hops) == 1]
    if iface:
        link, ip = _named(iface, links, usable)
    elif public_ip:
        link, ip = _holder(public_ip, "FLANNELD_PUBLIC_IP", links, usable)
    else:
        link, ip = _default(ways, links), None
    if ip is None:
        own = sorted((a for a in usable if a.link == link.number), key=_worth)
        if not own:
            raise Unavailable(f"interface {link.name} to the underlay has no IPv4 address")
        ip = own[0].ip
    near = {w.route.dst for w in ways if w.near and w.link == link.number}
    return External(link.name, ip, link.mtu, tuple(sorted(near)))


def _worth(address: AddressEntry) -> tuple[bool, bool]:
    """Rank an address: the lowest is meant for other hosts most."""
    return address.scope != nl.RT_SCOPE_UNIVERSE, not address.flags & nl.IFA_F_PERMANENT


def _named(
    iface: str, links: dict[int, Link], addresses: list[AddressEntry]
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
    ip: IPv4Address, setting: str, links: dict[int, Link], addresses: list[AddressEntry]
) -> tuple[Link, IPv4Address]:
    for address in addresses:
        if address.ip == ip and address.link in links:
            return links[address.link], ip
    hint = "" if setting == "FLANNELD_IFACE" else "; name the interface with FLANNELD_IFACE"
    raise Unavailable(f"{setting} {ip} is on no interface of this host{hint}")


def _default(ways: list[_Way], links: dict[int, Link]) -> Link:
    found = [w for w in ways if w.route.dst.prefixlen == 0 and w.link in links]
    if not found:
        raise Unavailable("this host has no default route; name an interface with FLANNELD_IFACE")
    return links[min(found, key=lambda w: w.route.metric).link]
