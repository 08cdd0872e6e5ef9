"""Reads the facts of the host's other links: bridges, prefixes, addresses, gateways."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

from driver.host.netlink import constants as nl
from driver.host.netlink import dump
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import Link, read_vxlan
from driver.host.netlink.dump import AddressEntry, RouteEntry
from driver.model.facts import GATEWAY, OWN, Facts
from driver.model.records import ANY

BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")  # there with br_netfilter
HALF = 1  # two routes of this length are a default route, as VPNs make them
UDP_PORT = 8285  # of flannel's udp backend (pkg/backend/udp), which the device does not show


class Surroundings(NamedTuple):
    """All links and addresses, and others' unicast routes in all tables."""

    links: dict[int, Link]
    addresses: list[AddressEntry]
    routes: list[RouteEntry]


def look(channel: Channel) -> Surroundings:
    """List them."""
    links, routes = channel.links(), dump.routes(channel, nl.RTN_UNICAST)
    hopping = [route for route in routes if route.hops]
    return Surroundings(links, list(dump.addresses(channel)), hopping)


def facts(found: Surroundings) -> Facts:
    """Return the facts that netlink shows. An uplink has a port or a gateway that leads out."""
    links, addresses, routes = found
    theirs = {index: link for index, link in links.items() if not link.ours}
    outward = {link.master for link in theirs.values() if not link.local}
    outward.update(index for route in routes for index, gateway in route.hops if gateway)
    bridges = {index: link for index, link in theirs.items() if link.kind == "bridge"}
    inner = bridges.keys() - outward
    main = [(route, route.hops[0][0]) for route in routes if route.table == nl.RT_TABLE_MAIN]
    carrying = {read_vxlan(link).parent for link in links.values() if link.kind == "vxlan"}
    reached, places = _reached(addresses, theirs, main)
    defaults = [(route.metric, index) for route, index in main if not route.dst.prefixlen]
    ways = {index for index, link in theirs.items() if not link.name.startswith("flannel")}
    return Facts(
        bridged=BRIDGED.exists() and BRIDGED.read_text().strip() == "1",
        uplinks=frozenset(bridges[index].name for index in bridges.keys() - inner),
        foreign=frozenset(bridges[index].name for index in inner),
        onlink=_sorted(reached.values()),
        holders=tuple((net, theirs[i].name) for i in reached for net in _sorted([reached[i]])),
        uplink_mtu=next((links[i].mtu for _, i in sorted(defaults) if i in links), None),
        tunnels=_tunnels(links.values()),
        carriers=frozenset(link.name for index, link in bridges.items() if index in carrying),
        lans=_sorted(
            {net for net in reached[index] if net.prefixlen < net.max_prefixlen}
            for index in ways - inner
            if theirs[index].name != "lo"
        ),
        routed=_sorted(
            {route.dst} for route, index in main if index in ways and route.dst.prefixlen > HALF
        ),
        places=tuple(sorted(places.items())),
    )


def _reached(
    addresses: Iterable[AddressEntry],
    theirs: dict[int, Link],
    main: list[tuple[RouteEntry, int]],
) -> tuple[dict[int, set[IPv4Network]], dict[IPv4Address, str]]:
    """Return what each link of others reaches or owns, and the host's addresses and gateways."""
    reached: dict[int, set[IPv4Network]] = {index: set() for index in theirs}
    places: dict[IPv4Address, str] = {}
    for route, index in main:
        if route.scope == nl.RT_SCOPE_LINK and index in theirs and route.dst.prefixlen:
            reached[index].add(route.dst)
        if route.dst.prefixlen <= HALF:
            places |= {ip: GATEWAY for _, ip in route.hops if ip and ip != ANY}
    for address in addresses:
        if address.link in theirs:
            reached[address.link] |= address.prefixes
            places[address.ip] = OWN
    return reached, {ip: what for ip, what in places.items() if not ip.is_loopback}


def _sorted(found: Iterable[set[IPv4Network]]) -> tuple[IPv4Network, ...]:
    return tuple(sorted({net for nets in found for net in nets if not net.is_loopback}))


def _tunnels(links: Iterable[Link]) -> frozenset[int]:
    """Return the UDP ports of flannel's devices, this plugin's own among them.

    Nothing in a frame that comes there proves who sent it: whoever reaches the port is in every
    network.
    """
    flannel = [link for link in links if link.name.startswith("flannel")]
    found = {read_vxlan(link).port for link in flannel if link.kind == "vxlan"}
    found |= {UDP_PORT for link in flannel if link.kind == "tun"}
    return frozenset(found - {0})
