"""The firewall entries that lease, overlay, networks, endpoints and peers need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from itertools import permutations

from driver.model.facts import OWN, Facts
from driver.model.firewall import (
    AnySource,
    BridgePair,
    Carrier,
    DirectLink,
    DockerMasquerade,
    EtcdMember,
    FirewallEntry,
    ForeignBridge,
    ForwardGate,
    InternalBridge,
    LeasePrefix,
    LocalEtcd,
    Masquerade,
    OverlayPrefix,
    PeerAddress,
    PeerPrefix,
    PortMap,
    Ruleset,
    SourceAddress,
    SourcePrefix,
    TunnelPort,
    Uplink,
    nameable,
)
from driver.model.objects import HostObject, PortSocket
from driver.model.records import Endpoint, Lease, Network, Overlay, Peer, State

SHORT, USUAL = 20, 24  # prefix lengths; a peer's lease between them is let in as several /24


def plan_base(lease: Lease, overlay: Overlay | None, facts: Facts) -> Iterator[HostObject]:
    """Yield what all networks share: the constant rules, the overlay's prefix, the gates.

    Direct peers are let in by the external interface. Containers may leave by a bridge that leads
    out of the host (`facts.uplinks`). Any other bridge that is not ours has somebody's containers
    or machines and is closed. No overlay frames are taken from it unless it carries the overlay.
    """
    yield Ruleset()
    yield OverlayPrefix(lease.network)
    yield LeasePrefix(lease.subnet)
    if overlay and facts.external and (overlay.direct_routing or overlay.backend == "host-gw"):
        yield DirectLink(facts.external.name)
    carriers = facts.carriers | ({facts.external.name} if facts.external else set())
    yield from map(Uplink, filter(nameable, facts.uplinks))
    yield from map(Carrier, filter(nameable, carriers & facts.foreign))
    own = {overlay.port} if overlay and overlay.backend == "vxlan" else set()
    yield from map(TunnelPort, facts.tunnels | own)
    if facts.firewall != "nft":  # nft recognizes bridges itself
        yield from map(ForeignBridge, facts.foreign)
    yield from _plan_etcd(facts)
    for variant in facts.gates:
        yield ForwardGate(variant, facts.bridged)


def _plan_etcd(facts: Facts) -> Iterator[HostObject]:
    """Yield what keeps all hosts' containers from etcd: whoever writes there rules the network.

    A member on this host can be reached by any of the host's addresses.
    """
    own = {ip for ip, what in facts.places if what == OWN}
    for ip, port in facts.etcd:
        yield EtcdMember(ip, port)
    yield from map(LocalEtcd, {at for ip, at in facts.etcd if ip in own or ip.is_loopback})


def plan_network_rules(network: Network) -> Iterator[FirewallEntry]:
    """Yield what lets a network's containers talk, and leave the host unless it is internal."""
    bridge, block, docker = network.bridge, network.gateway.network, network.docker_gateway
    yield BridgePair(bridge, bridge, network.id)
    yield SourcePrefix(block, bridge, network.id)
    if docker:
        yield SourcePrefix(docker.network, bridge, network.id)
    if network.any_source:
        yield AnySource(bridge, network.id)
    if network.internal:
        yield InternalBridge(bridge, network.id)
        return
    if network.masquerade:
        yield Masquerade(block, network.id)
    if docker:
        yield DockerMasquerade(docker.network, network.id)


def plan_sources(endpoint: Endpoint, other: Endpoint, state: State) -> Iterator[SourceAddress]:
    """Yield what lets two endpoints of one container send from each other's address.

    The container sends everything by the network of its default route, even answers to packets
    that came by another network.
    """
    places = [(place, state.networks[place.network]) for place in (endpoint, other)]
    if any(network.internal for _, network in places):
        return
    for (place, _), (_, network) in permutations(places):
        yield SourceAddress(place.ip.ip, network.bridge, place.id)


def plan_ports(endpoint: Endpoint) -> Iterator[PortSocket | PortMap]:
    """Yield a port map for each published port, and the socket that reserves the host port.

    A port leads to the container's first address: a program may be bound to it.
    """
    for port in endpoint.ports:
        place = port.proto, port.host_ip, port.host_port
        yield PortSocket(*place, endpoint.id)
        yield PortMap(*place, endpoint.shown_ip.ip, port.port, endpoint.id)


def plan_peers(peers: Iterable[Peer]) -> Iterator[PeerPrefix | PeerAddress]:
    """Yield what lets in the containers of direct peers, and these hosts themselves.

    Adding one to thousands of prefixes takes nft 40 ms, and no time if all have the same length.
    """
    for peer in peers:
        if SHORT <= peer.subnet.prefixlen < USUAL:
            yield from map(PeerPrefix, peer.subnet.subnets(new_prefix=USUAL))
        else:
            yield PeerPrefix(peer.subnet)
        yield PeerAddress(peer.public_ip)


def concerns(entry: FirewallEntry, bridges: set[str], prefixes: set[IPv4Network]) -> bool:
    """Whether an entry is for a network with one of these bridges or prefixes."""
    match entry:
        case BridgePair(source, destination):
            return not bridges.isdisjoint((source, destination))
        case SourcePrefix() | SourceAddress() | AnySource() | InternalBridge():
            return entry.bridge in bridges
        case Masquerade(prefix) | DockerMasquerade(prefix):
            return prefix in prefixes
    return False
