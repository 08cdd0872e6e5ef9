"""This host's VTEP and the objects for each peer. Pure.

As with flannel, hosts use neither ARP nor learning: a peer is one neighbour (its VTEP, with its
subnet's first address), one FDB entry and one route; a directly routed peer is only a route.
Source: flannel, pkg/backend/{vxlan,hostgw}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Interface, IPv4Network

from driver.model.facts import External
from driver.model.objects import Fdb, HostObject, LinkAddress, Neighbour, PeerRoute, Sysctl, Vxlan
from driver.model.records import Overlay, Peer, Vtep

ENCAPSULATION = 50  # bytes of outer Ethernet payload: IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14


def container_mtu(overlay: Overlay, external: External) -> int:
    """Return the overlay's MTU, in bytes: the underlay need not fragment its packets."""
    if overlay.backend == "host-gw":
        return external.mtu
    return min(overlay.mtu or external.mtu, external.mtu) - ENCAPSULATION


def plan_vtep(
    overlay: Overlay, subnet: IPv4Network, vtep: Vtep, external: External
) -> Iterator[HostObject]:
    """Yield the VTEP device and its address; host-gw needs none.

    The address is the subnet's first, as a /32, which adds no route; it is the source of the host's
    own packets to the overlay. The device sends from the interface's address: behind NAT, a host
    does not have the public one. `accept_ra` is off so that no peer becomes the host's IPv6 router.
    """
    if overlay.backend == "host-gw":
        return
    name = overlay.device
    yield Vxlan(
        name,
        overlay.vni,
        overlay.port,
        external.ip,
        external.name,
        vtep.mac,
        container_mtu(overlay, external),
        overlay.gbp,
        overlay.learning,
    )
    yield LinkAddress(name, IPv4Interface(subnet.network_address))
    yield Sysctl(name, "ipv6", "accept_ra", "0")


def plan_peers(
    overlay: Overlay, peers: Iterable[Peer], vtep: Vtep, external: External
) -> Iterator[HostObject]:
    """Yield what the peers need, except those that `problems` reports."""
    for peer, obstacle in _with_obstacles(overlay, peers, vtep, external):
        if not obstacle:
            yield from _plan(overlay, peer, external)


def problems(
    overlay: Overlay, peers: Iterable[Peer], vtep: Vtep, external: External
) -> Iterator[str]:
    """Yield why peers cannot be reached, a sentence each, in the order of their subnets."""
    for peer, obstacle in _with_obstacles(overlay, peers, vtep, external):
        if obstacle:
            yield f"peer {peer.subnet} {obstacle}"


def direct_peers(
    overlay: Overlay, peers: Iterable[Peer], vtep: Vtep, external: External
) -> Iterator[Peer]:
    """Yield the directly routed peers, except those inside the subnet of another."""
    if not (overlay.direct_routing or overlay.backend == "host-gw"):
        return
    last: IPv4Network | None = None
    for peer, obstacle in _with_obstacles(overlay, peers, vtep, external):
        inside = last is not None and peer.subnet.subnet_of(last)
        if not obstacle and not inside and _is_direct(overlay, peer, external):
            last = peer.subnet
            yield peer


def _plan(overlay: Overlay, peer: Peer, external: External) -> Iterator[HostObject]:
    if peer.mac is None or _is_direct(overlay, peer, external):
        # ip route replace 10.5.24.0/24 via 192.0.2.24 dev eth0
        yield PeerRoute(peer.subnet, peer.public_ip, external.name, onlink=False)
        return
    name, gateway = overlay.device, peer.subnet.network_address
    # ip neigh replace 10.5.24.0 lladdr MAC dev flannel.1 nud permanent
    yield Neighbour(name, gateway, peer.mac)
    # bridge fdb replace MAC dev flannel.1 dst 192.0.2.24 self permanent
    yield Fdb(name, peer.mac, peer.public_ip)
    # ip route replace 10.5.24.0/24 via 10.5.24.0 dev flannel.1 onlink
    yield PeerRoute(peer.subnet, gateway, name, onlink=True)


def _with_obstacles(
    overlay: Overlay, peers: Iterable[Peer], vtep: Vtep, external: External
) -> Iterator[tuple[Peer, str]]:
    """Yield each peer and why it cannot be reached, "" if it can, sorted by subnet.

    A MAC can have one address only: of hosts with the same MAC, only the first is reached.
    """
    holders: dict[str, Peer] = {}
    for peer in sorted(peers, key=lambda p: (int(p.subnet.network_address), p.subnet.prefixlen)):
        obstacle = _obstacle(overlay, peer, vtep, external)
        if peer.mac and not obstacle and not _is_direct(overlay, peer, external):
            holder = holders.setdefault(peer.mac, peer)
            if holder.public_ip != peer.public_ip:
                obstacle = f"has the VTEP MAC of peer {holder.subnet}, {peer.mac}"
        yield peer, obstacle


def _obstacle(overlay: Overlay, peer: Peer, vtep: Vtep, external: External) -> str:
    if peer.backend != overlay.backend:
        return f"uses backend {peer.backend}, this host {overlay.backend}"
    if peer.public_ip == vtep.public_ip:
        return f"has this host's public IP, {peer.public_ip}"
    if overlay.backend == "host-gw":
        near = _is_direct(overlay, peer, external)
        return "" if near else f"is not on the link of {external.name}, as host-gw needs it"
    if peer.mac == vtep.mac and not _is_direct(overlay, peer, external):
        return f"has this host's VTEP MAC, {peer.mac}"  # the kernel drops packets with its own
    return "" if peer.mac else "names no VTEP MAC"


def _is_direct(overlay: Overlay, peer: Peer, external: External) -> bool:
    """Whether a peer is routed to directly, without VXLAN, since it is on the same link."""
    may = overlay.direct_routing or overlay.backend == "host-gw"
    return may and any(peer.public_ip in prefix for prefix in external.onlink)
