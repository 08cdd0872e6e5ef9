"""Make rows for running containers that the state does not know, from the host's objects. Pure.

Link aliases show the ids, link addresses the gateways, firewall entries what a network may do and
which ports are published; the sandboxes show the rest. Docker's next call reveals which IPAM a
network has (`Edit.pool`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network

from driver.core.edit import Edit
from driver.core.firewall import concerns
from driver.model.facts import Resident
from driver.model.firewall import (
    AnySource,
    DirectLink,
    FirewallEntry,
    InternalBridge,
    Masquerade,
    OverlayPrefix,
    PortMap,
)
from driver.model.objects import (
    Bridge,
    HostObject,
    LinkAddress,
    PeerRoute,
    UnreachableRoute,
    Veth,
    Vxlan,
)
from driver.model.records import (
    BRIDGE_PREFIX,
    HOST_END_PREFIX,
    Endpoint,
    Hold,
    Lease,
    Network,
    Pool,
    PortMapping,
    State,
    Vtep,
    replace,
    short,
)

DEFAULT_PREFIX = "eth"
OTHERS = (
    "the state is old or another host's: none of its networks is on this host, where containers "
    "run on other networks; `docker-flannel restore` puts the right one back, and "
    "`docker flannel forget` gives up a network that Docker does not list"
)
HOW = "left as it is; `docker flannel adopt` takes it over with what Docker knows"


class _Unclear(Exception):
    """The host does not show enough."""


@dataclass
class Adopted:
    """What was taken over and what could not be, a sentence each."""

    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @contextmanager
    def unless_unclear(self, what: str) -> Iterator[None]:
        """Note in `left` that the host does not show enough."""
        try:
            yield
        except _Unclear as why:
            self.left.append(f"the state does not know {what}, and {why}: {HOW}")


def recall(have: frozenset[HostObject], mtu: int | None) -> State:
    """Return this host's lease and VTEP as the host shows them, for a state that is empty.

    The unreachable route shows the lease, the device the VTEP's MAC. Units: `mtu` bytes.
    """
    devices = [t for t in have if isinstance(t, Vxlan)]
    vtep = Vtep(devices[0].local, devices[0].mac) if devices else None
    bridges = {t.name: t.mtu for t in have if isinstance(t, Bridge)}
    gateways = [t.ip.ip for t in have if isinstance(t, LinkAddress) and t.link in bridges]
    used = [
        t.dst
        for t in have
        if isinstance(t, UnreachableRoute) and any(ip in t.dst for ip in gateways)
    ]
    nets = [t.prefix for t in have if isinstance(t, OverlayPrefix)]
    for subnet in sorted(used, key=lambda net: -net.prefixlen):
        for net in (net for net in nets if subnet.subnet_of(net) and subnet != net):
            others = any(isinstance(t, PeerRoute | DirectLink) for t in have)
            source = "etcd" if devices or others else "standalone"
            return State(Lease(net, subnet, mtu or max(bridges.values()), source), vtep=vtep)
    return State(vtep=vtep)


def adopt(
    edit: Edit,
    have: frozenset[HostObject],
    veths: Sequence[Veth],
    by_end: Mapping[str, Resident],
    *,
    empty: bool,
) -> Adopted:
    """Make rows for the veths of running containers, and for their networks.

    `by_end`: the container ends by host end. `empty`: the whole state is lost, so networks without
    containers are taken over, too.
    """
    taken = Adopted()
    bridges = {t.name: t for t in have if isinstance(t, Bridge)}
    stored = list(edit.state.networks.values())
    if veths and stored and not any(network.bridge in bridges for network in stored):
        taken.left.append(OTHERS)
    wanted = {veth.bridge for veth in veths} | (bridges.keys() if empty else set())
    for name in sorted(wanted & bridges.keys()):
        if bridges[name].owner not in edit.state.networks:
            on = [by_end[v.name] for v in veths if v.bridge == name and v.name in by_end]
            with taken.unless_unclear(f"bridge {name}"):
                taken.done.append(_network(edit, have, bridges[name], on))
    for veth in sorted(veths, key=lambda v: v.name):
        with taken.unless_unclear(f"who runs at {veth.name}"):
            bridge = bridges.get(veth.bridge)
            network = edit.state.networks.get(bridge.owner if bridge else "")
            if network is None:
                raise _Unclear("its bridge is unknown, too")
            taken.done.append(_endpoint(edit, have, veth, network, by_end.get(veth.name)))
    return taken


def _network(
    edit: Edit, have: frozenset[HostObject], bridge: Bridge, residents: list[Resident]
) -> str:
    lease = edit.state.lease
    if bridge.name != BRIDGE_PREFIX + short(bridge.owner):
        raise _Unclear(f"bridge {bridge.name} does not say its network's id")
    if lease is None:
        raise _Unclear("this host has no lease yet")
    ips = sorted(t.ip for t in have if isinstance(t, LinkAddress) and t.link == bridge.name)
    gateway = min(ips, key=lambda ip: (ip.ip not in lease.subnet, ip.ip not in lease.network),
                  default=None)  # fmt: skip
    if gateway is None or gateway.ip not in lease.network:
        raise _Unclear(f"bridge {bridge.name} has no address of the flannel network")
    docker = next((ip for ip in ips if ip != gateway), None)
    block = gateway.network
    rules = {
        type(item)
        for item in have
        if isinstance(item, FirewallEntry) and concerns(item, {bridge.name}, {block})
    }
    routed = any(ip.ip in resident.gateways for resident in residents for ip in ips)
    if not rules and not residents:
        raise _Unclear("the firewall does not say whether it is internal")
    internal = InternalBridge in rules or not (rules or routed)
    _make_room(edit, have, ips)
    pool = Pool("", block, None, None, edit.now)
    pool = pool.owned("network", bridge.owner) if docker else pool.owned("adopted", str(block))
    names = [resident.interface.rstrip("0123456789") for resident in residents]
    network = Network(
        bridge.owner,
        pool.id,
        gateway,
        mtu=bridge.mtu or lease.mtu,
        internal=internal,
        masquerade=internal or Masquerade in rules or not rules,
        interface_prefix=next(filter(None, names), DEFAULT_PREFIX),
        docker_gateway=docker,
        any_source=AnySource in rules,
    )
    edit.take(pool, Hold(pool.id, gateway.ip, "gateway", edit.now))
    edit.put(network)
    return f"network {short(network.id)} with {block} was taken over from the host"


def _make_room(edit: Edit, have: frozenset[HostObject], ips: Iterable[IPv4Interface]) -> None:
    """Drop an older state's networks and pools in these blocks. Raise _Unclear if one is in use."""
    there = {item.name for item in have if isinstance(item, Bridge)}
    state, blocks = edit.state, [ip.network for ip in ips]
    for network in [n for n in state.networks.values() if _overlaps(n.gateway, blocks)
                    or (n.docker_gateway and _overlaps(n.docker_gateway, blocks))]:  # fmt: skip
        if network.bridge in there:
            raise _Unclear(f"network {short(network.id)} of the state has its block")
        edit.drop(network)
    for pool in [p for p in state.pools.values() if _overlaps(IPv4Interface(p.cidr), blocks)]:
        edit.drop(pool)


def _overlaps(gateway: IPv4Interface, blocks: Iterable[IPv4Network]) -> bool:
    return any(gateway.network.overlaps(block) for block in blocks)


def _endpoint(
    edit: Edit, have: frozenset[HostObject], veth: Veth, network: Network, resident: Resident | None
) -> str:
    if veth.name != HOST_END_PREFIX + short(veth.owner):
        raise _Unclear("its alias does not say its endpoint's id")
    if resident is None:
        raise _Unclear("its sandbox is not found among Docker's, or cannot be entered")
    known = edit.state.endpoints.get(veth.owner)
    ports = _ports(have, veth.owner)
    shown = " and ".join(str(ip.ip) for ip in resident.addresses)
    words = f"endpoint {short(veth.owner)} with {shown} was taken over from the host"
    if known is not None:
        edit.put(replace(known, sandbox=resident.sandbox, ports=known.ports or ports))
        return words
    ip = _one_of(resident.addresses, network.gateway)
    docker = _one_of(resident.addresses, network.docker_gateway)
    if ip is None or (network.docker_gateway and docker is None):
        raise _Unclear(f"its interface has no address of {network.gateway.network}")
    for other in edit.state.endpoints_of(network.id):
        if other.ip.ip == ip.ip:
            if any(isinstance(t, Veth) and t.name == other.host_end for t in have):
                raise _Unclear(f"endpoint {short(other.id)} of the state has {ip.ip}")
            edit.drop(other)
    made = Endpoint(
        veth.owner,
        network.id,
        ip,
        resident.mac,
        edit.now,
        sandbox=resident.sandbox,
        ports=ports,
        docker_ip=docker,
    )
    # released: Docker never releases this address itself, so it goes with the endpoint
    edit.put(made, Hold(network.pool, ip.ip, "endpoint", edit.now, released=True))
    return words


def _one_of(ips: Iterable[IPv4Interface], gateway: IPv4Interface | None) -> IPv4Interface | None:
    if gateway is None:
        return None
    return next((ip for ip in ips if ip.ip in gateway.network and ip.ip != gateway.ip), None)


def _ports(have: frozenset[HostObject], owner: str) -> tuple[PortMapping, ...]:
    return tuple(
        PortMapping(t.proto, t.host_ip, t.host_port, t.target_port)
        for t in have
        if isinstance(t, PortMap) and t.owner and owner.startswith(t.owner)
    )
