"""Derive from the state what the host should have, and which records are stale. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Interface
from typing import TypeVar

from driver import ipam, vxlan
from driver.core import addresses, bridge, firewall, strays
from driver.model.facts import Facts
from driver.model.identity import Key
from driver.model.objects import (
    ALL,
    Fdb,
    HostObject,
    LinkAddress,
    LoopbackGuard,
    Neighbour,
    PeerRoute,
    SandboxAddress,
    Sysctl,
    UnreachableRoute,
    Veth,
    Vxlan,
)
from driver.model.records import (
    FLANNEL_PREFIX,
    Endpoint,
    Lease,
    Network,
    Peer,
    Record,
    State,
    hold_id,
    short,
)

STALE_S = 60.0
Row = TypeVar("Row", Network, Endpoint, Peer)


def desire(
    state: State,
    facts: Facts,
    networks: Iterable[str] | None = None,
    endpoints: Iterable[str] | None = None,
    peers: Collection[str] = (),
    *,
    shared: bool = True,
) -> frozenset[HostObject]:
    """Return the objects that should exist: all, or those of some networks, endpoints, peers by id.

    Without networks there is only the overlay, so that an unused host stays as it was. `shared`:
    include what all networks share. This host's end of the overlay and the sandboxes' addresses
    are included only if `networks` is None.
    """
    if state.lease is None:
        return frozenset()
    every = networks is None
    return frozenset(
        item
        for part in (
            _of_peers(state, facts, None if every else peers) if shared or peers else (),
            _shared(state, facts) if shared else (),
            _of_networks(state, facts, networks),
            _of_endpoints(state, endpoints),
            in_sandboxes(state) if every else (),
        )
        for item in part
    )


def _of_peers(state: State, facts: Facts, ids: Iterable[str] | None) -> Iterator[HostObject]:
    peers = _chosen(state.peers, ids)
    yield from _overlay(state, facts, peers, whole=ids is None)
    if state.lease and state.networks:
        yield from strays.plan_rules(state.lease, peers, facts)
        if state.overlay and state.vtep and facts.external:
            near = vxlan.direct_peers(state.overlay, peers, state.vtep, facts.external)
            yield from firewall.plan_peers(near)


def _shared(state: State, facts: Facts) -> Iterator[HostObject]:
    if state.lease and state.networks:
        yield UnreachableRoute(state.lease.subnet)
        yield from firewall.plan_base(state.lease, state.overlay, facts)
        yield from bridge.plan_forwarding([ALL], facts)


def _of_networks(state: State, facts: Facts, ids: Iterable[str] | None) -> Iterator[HostObject]:
    networks = {network.id: network for network in _chosen(state.networks, ids)}
    ends = [e for e in state.endpoints.values() if e.ports and e.network in networks]
    local = {endpoint.network for endpoint in ends if bridge.on_localhost(endpoint)}
    for network in networks.values():
        yield from bridge.plan_network(network)
        yield from bridge.plan_forwarding([network.bridge], facts)
        yield LoopbackGuard(network.bridge, facts.guards and network.id in local)
        yield from firewall.plan_network_rules(network)


def _of_endpoints(state: State, ids: Iterable[str] | None) -> Iterator[HostObject]:
    for endpoint in _chosen(state.endpoints, ids):
        yield from bridge.plan_endpoint(endpoint, state.networks[endpoint.network])
        yield from firewall.plan_ports(endpoint)
    for endpoint, other in _in_one_sandbox(state, ids):
        yield from firewall.plan_sources(endpoint, other, state)


def of_links(state: State, facts: Facts, links: frozenset[str]) -> frozenset[HostObject]:
    """Return some bridges and veths as they should be, with what belongs on them."""
    objects = set[HostObject]()
    if state.lease is not None:
        for network in [n for n in state.networks.values() if n.bridge in links]:
            objects.update(bridge.plan_network(network))
            objects.update(bridge.plan_forwarding([network.bridge], facts))
        for endpoint in [e for e in state.endpoints.values() if e.host_end in links]:
            objects.update(bridge.plan_endpoint(endpoint, state.networks[endpoint.network]))
    return frozenset(objects)


def left_alone(
    objects: frozenset[HostObject], lease: Lease | None, facts: Facts
) -> frozenset[HostObject]:
    """Leave out the overlay's objects if a flanneld uses them, whoever made them.

    A flanneld that finds the plugin's device and routes uses them as they are: objects with the
    plugin's mark may be in use although the lease is no longer the plugin's.
    """
    if lease.source != "subnet-file" if lease else not facts.flanneld.process:
        return objects
    return frozenset(item for item in objects if not _of_overlay(item))


def _of_overlay(item: HostObject) -> bool:
    if isinstance(item, LinkAddress | Sysctl):
        return item.link.startswith(FLANNEL_PREFIX)
    return isinstance(item, Vxlan | Neighbour | Fdb | PeerRoute)


def in_sandboxes(state: State) -> Iterator[SandboxAddress]:
    """Yield the addresses in sandboxes; `set_sandbox_addresses` or a pass sets them."""
    if state.lease is not None:
        for endpoint in [e for e in state.endpoints.values() if e.docker_ip]:
            yield from bridge.plan_sandbox(endpoint, state.networks[endpoint.network], state.lease)


def _overlay(
    state: State, facts: Facts, peers: Iterable[Peer], *, whole: bool
) -> Iterator[HostObject]:
    """Yield the objects for peers; with `whole`, also this host's end, which only passes change."""
    lease, overlay, vtep = state.lease, state.overlay, state.vtep
    if overlay and facts.flanneld.has(overlay):
        return
    if lease and overlay and vtep and facts.external and lease.source == "etcd":
        if whole:
            end = list(vxlan.plan_vtep(overlay, lease.subnet, vtep, facts.external))
            yield from end
            yield from strays.plan_route(overlay, lease.subnet, peers, facts)
            if state.networks:
                devices = [t.name for t in end if isinstance(t, Vxlan)]
                yield from bridge.plan_forwarding(devices, facts)
        yield from vxlan.plan_peers(overlay, peers, vtep, facts.external)


def _chosen(stored: Mapping[str, Row], ids: Iterable[str] | None) -> Iterable[Row]:
    if ids is None:
        return stored.values()
    return [stored[i] for i in ids if i in stored]


def _in_one_sandbox(state: State, ids: Iterable[str] | None) -> Iterator[tuple[Endpoint, Endpoint]]:
    """Yield pairs: an endpoint and another one of the same container."""
    chosen = [e for e in _chosen(state.endpoints, ids) if e.sandbox and e.network in state.networks]
    beside = {e.sandbox: list[Endpoint]() for e in chosen}
    for endpoint in state.endpoints.values():
        if endpoint.sandbox in beside and endpoint.network in state.networks:
            beside[endpoint.sandbox].append(endpoint)
    for endpoint in chosen:
        for other in beside[endpoint.sandbox]:
            if other.id != endpoint.id:
                yield endpoint, other


def stale(
    state: State, links: frozenset[str], occupied: frozenset[str], now: float
) -> Iterator[tuple[Record, str]]:
    """Yield the records of what Docker no longer has, each with the reason.

    `links`: the names of our links in the host's namespace; `occupied`: those whose other end is in
    a sandbox: a running container's endpoint is never stale. A caller drops what two passes name,
    since a link may be moving between namespaces during one.
    """
    for endpoint in [e for e in state.endpoints.values() if e.host_end not in occupied]:
        reason = _why_stale(endpoint, links, now)
        if reason:
            yield endpoint, f"endpoint {short(endpoint.id)} {reason}"
    for network in state.networks.values():
        if network.pool not in state.pools and not state.endpoints_of(network.id):
            yield network, f"network {short(network.id)} was given up by Docker"
    for hold in addresses.orphans(state, now):
        yield hold, f"address {hold.ip} was asked for and not used"
    for pool in ipam.unclaimed_pools(state):
        if now - pool.since > STALE_S:
            yield pool, f"block {pool.cidr} was asked for and not used"


def lost(state: State, links: frozenset[str]) -> list[Endpoint]:
    """List the joined endpoints whose veth vanished with its sandbox."""
    return [
        e for e in state.endpoints.values() if e.sandbox is not None and e.host_end not in links
    ]


def surely_dead(
    state: State, links: frozenset[str], found: State, wanted: IPv4Interface | None = None
) -> list[Endpoint]:
    """List the joined endpoints that certainly have no container any more.

    Their veths vanished with their sandboxes; or the container end is back on the host, and one of
    these is so: Docker has released the address, or has given it to another endpoint (`wanted`), or
    the endpoint is as the previous process or dockerd left it (`found`): its Join is long over.
    """
    own = {pool.id for pool in state.pools.values() if pool.owner == "network"}
    released = {h.id for h in state.holds.values() if h.released and h.pool not in own}
    back = [e for e in state.endpoints.values() if e.sandbox and e.container_end in links]
    return lost(state, links) + [
        e
        for e in back
        if e.shown_ip == wanted
        or hold_id(state.networks[e.network].pool, e.ip.ip) in released
        or found.endpoints.get(e.id) == e
    ]


def awaited(state: State, links: frozenset[str]) -> frozenset[Key]:
    """Return the addresses whose sandboxes lack the interface: Docker has not moved it yet."""
    return frozenset(
        SandboxAddress.key_of(e.host_end)
        for e in state.endpoints.values()
        if e.docker_ip and e.sandbox and e.container_end in links
    )


def gone(state: State, links: frozenset[str]) -> frozenset[Key]:
    """Return what vanished with its sandbox: it cannot be made again."""
    ends = [e.host_end for e in lost(state, links)]
    return frozenset(kind.key_of(end) for end in ends for kind in (Veth, SandboxAddress))


def _why_stale(endpoint: Endpoint, links: frozenset[str], now: float) -> str:
    if endpoint.sandbox is None:
        return "was never joined" if now - endpoint.since > STALE_S else ""
    if endpoint.host_end not in links:
        return "lost its veth with its sandbox"
    # Docker moves the container end into the sandbox within moments of Join, and back at Leave
    if endpoint.container_end in links and now - endpoint.since > STALE_S:
        return "has no sandbox any more"
    return ""
