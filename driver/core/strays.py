"""Keep packets to the Network that go to no peer from leaving by the default route. Pure.

The host gets an unreachable route to the whole Network, less specific than the routes to peers,
unless it reaches something in there by its default route only. The firewall always keeps the
containers' packets in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, collapse_addresses

from driver.model.facts import GATEWAY, OWN, Facts
from driver.model.firewall import ClosedPrefix, NearPrefix
from driver.model.objects import UnreachableRoute
from driver.model.prefixes import fault_of_network, holds, parts, within
from driver.model.records import Lease, Overlay, Peer


def plan_route(
    overlay: Overlay, subnet: IPv4Network, peers: Iterable[Peer], facts: Facts
) -> Iterator[UnreachableRoute]:
    """Yield the route that keeps the host's own packets in, unless it would cut something off.

    A Network that is refused today may be in use from an earlier version.
    """
    if not fault_of_network(overlay.network) and not need(overlay, subnet, peers, facts):
        yield UnreachableRoute(overlay.network)


def warnings(
    overlay: Overlay, subnet: IPv4Network, peers: Iterable[Peer], facts: Facts
) -> Iterator[str]:
    """Yield why there is no such route, if there is none."""
    if what := need(overlay, subnet, peers, facts):
        yield (
            f"the Network {overlay.network} contains {what}: so what this host itself sends to the "
            "Network, but to no peer, leaves by the default route; choose a Network that only the "
            "overlay uses"
        )


def need(overlay: Overlay, subnet: IPv4Network, peers: Iterable[Peer], facts: Facts) -> str:
    """Return something in the Network that may need the default route, "" if there is nothing.

    If the gateway itself is in the Network, so may be anything behind it.
    """
    network = overlay.network
    near = (subnet, *_near(network, facts))
    resolvers = [(ip, "a name server of this host") for ip in facts.resolvers]
    places = [place for place in (*facts.places, *resolvers) if holds(network, place[0])]
    peers = tuple(peers)
    for ip, what in places:
        reached = what == OWN or any(holds(prefix, ip) for prefix in near)
        if what == GATEWAY or not (reached or any(holds(peer.subnet, ip) for peer in peers)):
            return f"{ip}, {what}"
    for ip in within(network, (peer.public_ip for peer in peers)):
        if not any(holds(prefix, ip) for prefix in near):
            return f"{ip}, the address of another host"
    return ""


def plan_rules(
    lease: Lease, peers: Iterable[Peer], facts: Facts
) -> Iterator[ClosedPrefix | NearPrefix]:
    """Yield what drops containers' packets to the Network that go neither to peers nor near by.

    Near by is what the host has on its links or a route to, and the other hosts themselves. If
    flanneld makes the routes, any of them may lead to a peer, so nothing is closed.
    """
    if lease.source == "subnet-file" or fault_of_network(lease.network):
        return
    yield ClosedPrefix(lease.network)
    near = _near(lease.network, facts)
    yield from map(NearPrefix, near)
    for ip in set(within(lease.network, (peer.public_ip for peer in peers))):
        if not any(holds(prefix, ip) for prefix in near):
            yield NearPrefix(IPv4Network(ip))


def _near(network: IPv4Network, facts: Facts) -> list[IPv4Network]:
    """Return the parts of the Network on the host's links or behind other programs' routes."""
    return list(collapse_addresses(parts(network, (*facts.onlink, *facts.routed))))
