"""Find what runs although the state does not know it, so that no pass removes it. Pure.

A veth whose other end is in another namespace belongs to a running container, even if the state is
empty, old or another host's. Its bridge and its firewall entries stay, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import NamedTuple

from driver.core.firewall import concerns
from driver.model.firewall import (
    BridgePair,
    DirectLink,
    FirewallEntry,
    PeerAddress,
    PeerPrefix,
    PortMap,
    SourcePrefix,
)
from driver.model.identity import Key
from driver.model.objects import (
    Bridge,
    Fdb,
    HostObject,
    LinkAddress,
    LoopbackGuard,
    Neighbour,
    PeerRoute,
    Plan,
    Sysctl,
    Veth,
    Vxlan,
)
from driver.model.records import State

OVERLAY = (Vxlan, Neighbour, Fdb, PeerRoute, DirectLink, PeerPrefix, PeerAddress)
BELONGINGS = (Bridge, Veth, LinkAddress, Sysctl, FirewallEntry)  # of networks and endpoints


class Seen(NamedTuple):
    """What the host has: names of our links, of those of running containers, and the objects."""

    links: frozenset[str]
    occupied: frozenset[str]
    have: frozenset[HostObject]


def unknown_objects(state: State, seen: Seen) -> list[Veth]:
    """List the veths of running containers that the state does not know, or not as running."""
    known = {e.host_end for e in state.endpoints.values() if e.sandbox is not None}
    strange = seen.occupied - known
    return [t for t in seen.have if isinstance(t, Veth) and t.name in strange]


def unknown_blocks(state: State, have: frozenset[HostObject]) -> frozenset[IPv4Network]:
    """Return the prefixes of our bridges that the state does not know: they are in use."""
    known = {network.bridge for network in state.networks.values()}
    strange = {t.name for t in have if isinstance(t, Bridge)} - known
    return frozenset(t.ip.network for t in have if isinstance(t, LinkAddress) and t.link in strange)


def kept(
    state: State, seen: Seen, want: frozenset[HostObject], *, everything: bool
) -> frozenset[HostObject]:
    """Return what stays on the host though it is not in `want`: what unknown containers need.

    Everything stays if `everything`, or if the state has no lease or no network. So does an overlay
    that is yet to be read from etcd.
    """
    left, have = unknown_objects(state, seen), seen.have
    if everything or (left and (state.lease is None or not state.networks)):
        stays = have
    else:
        stays = frozenset(_one_each(_of(left, state, have)))
        if state.lease and state.lease.source == "etcd" and not state.overlay and state.endpoints:
            stays |= frozenset(_of_overlay(have))
    there = {item.key for item in want}
    return frozenset(item for item in stays if item.key not in there)


def _of(left: list[Veth], state: State, have: frozenset[HostObject]) -> Iterator[HostObject]:
    """Yield the unknown veths, their ports, and all that belongs to their unknown bridges."""
    yield from left
    owners = {veth.owner for veth in left}
    bridges = {veth.bridge for veth in left} - {n.bridge for n in state.networks.values()}
    yield from _about(have, owners, bridges)
    # an older version's table may lack the entries by which a bridge's own traffic passes
    for address in have:
        if isinstance(address, LinkAddress) and address.link in bridges:
            yield BridgePair(address.link, address.link)
            yield SourcePrefix(address.ip.network, address.link)


def _about(
    have: frozenset[HostObject], owners: set[str], bridges: set[str]
) -> Iterator[HostObject]:
    """Yield what belongs to some bridges, and the ports of some endpoints."""
    blocks = {t.ip.network for t in have if isinstance(t, LinkAddress) and t.link in bridges}
    for item in have:
        match item:
            case Bridge(name) if name in bridges:
                yield item
            case LinkAddress(link) | LoopbackGuard(link) | Sysctl(link) if link in bridges:
                yield item
            case PortMap(target=target, owner=owner):
                mine = owner and any(known.startswith(owner) for known in owners)
                if mine or any(target in block for block in blocks):
                    yield item
            case FirewallEntry() if concerns(item, bridges, blocks):
                yield item


def _one_each(objects: Iterator[HostObject]) -> Iterator[HostObject]:
    """Leave out objects with the key of an earlier one."""
    seen = set[Key]()
    for item in objects:
        if item.key not in seen:
            seen.add(item.key)
            yield item


def belongings(seen: Seen, owner: str) -> Plan:
    """Return a plan that removes an endpoint, or a network that is not in use.

    Docker's calls also end what the state does not know.
    """
    have = seen.have
    busy = {t.bridge for t in have if isinstance(t, Veth) and t.name in seen.occupied}
    bridges = {t.name for t in have if isinstance(t, Bridge) and t.owner == owner} - busy
    veths = [item for item in have if isinstance(item, Veth) and item.owner == owner]
    return Plan(remove=(*veths, *_about(have, {owner}, bridges)))


def _of_overlay(have: frozenset[HostObject]) -> Iterator[HostObject]:
    devices = {item.name for item in have if isinstance(item, Vxlan)}
    for item in have:
        own = isinstance(item, LinkAddress | Sysctl) and item.link in devices
        if own or isinstance(item, OVERLAY):
            yield item
