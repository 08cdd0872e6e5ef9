"""What is for the overlay's Network but for no peer: it must not leave in clear. Pure.

The host gets an unreachable route for all of the Network, below those to peers, unless it needs
something in there that only its default route leads to; containers are kept in by the firewall in
any case.
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
    """Yield the route that keeps the host's own packets in, if it cuts nothing off.

    A Network that no overlay can have may be in use since it was not refused yet.
    """
    if not fault_of_network(overlay.network) and not need(overlay, subnet, peers, facts):
        yield UnreachableRoute(overlay.network)


def warnings(
    overlay: Overlay, subnet: IPv4Network, peers: Iterable[Peer], facts: Facts
) -> Iterator[str]:
    """Warn where there is no such route, and say why."""
    if what := need(overlay, subnet, peers, facts):
        yield (
            f"the Network {overlay.network} has {what}, in it: what this host itself sends there, "
            "but to no peer, leaves by the default route in clear; a Network of its own for the "
            "overlay would be closed"
        )


def need(overlay: Overlay, subnet: IPv4Network, peers: Iterable[Peer], facts: Facts) -> str:
    """Name something in the Network that the host may need its default route for, "" for nothing.

    Where its gateway is in the Network, so may be whatever is behind that.
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
    """Yield what keeps containers' packets in the Network, but for what is no container there.

    That is what the host has on its links or a route to, and other hosts themselves. Where flanneld
    makes the routes, any of them may be the way to a peer, so nothing is closed.
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
    """Return the parts of the Network that the host reaches by others' routes, not the default."""
    return list(collapse_addresses(parts(network, (*facts.onlink, *facts.routed))))
