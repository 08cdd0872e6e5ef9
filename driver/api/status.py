"""What `docker flannel status` shows, as a JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from driver import __version__
from driver.api.body import Reply
from driver.core import misfits, strays
from driver.core.bridge import on_localhost
from driver.core.reconciler import Reconciler
from driver.model.firewall import nameable
from driver.model.records import Endpoint, Network, Peer, State


def document(core: Reconciler, problems: Iterable[str] = (), warnings: Iterable[str] = ()) -> Reply:
    """Return the status; `problems` and `warnings` are those that the core does not know.

    Shape: {version, lease, phase, note, firewall, overlay, peers, networks, endpoints,
    blocks_of_others, repaired, warnings, problems}; each problem and warning a sentence with what
    to do; times in Unix seconds.
    """
    state = core.state
    return {
        "version": __version__,
        "lease": _lease(state),
        "phase": core.lease_status.phase,
        "note": core.lease_status.note,
        "firewall": core.facts.firewall,
        "overlay": _overlay(state),
        "peers": [_peer(p) for p in sorted(state.peers.values(), key=lambda p: p.subnet)],
        "networks": [_network(state, n) for n in state.networks.values()],
        "endpoints": [_endpoint(e) for e in state.endpoints.values()],
        "blocks_of_others": [
            str(p.cidr) for p in state.pools.values() if state.network_of(p.id) is None
        ],
        "repaired": [{"at": report.at, "what": str(report)} for report in core.history.reports],
        "warnings": [*warnings, *_warnings(core)],
        "problems": list(_problems(core, problems)),
    }


def _lease(state: State) -> Reply | None:
    lease = state.lease
    if lease is None:
        return None
    return {
        "subnet": str(lease.subnet),
        "network": str(lease.network),
        "mtu": lease.mtu,
        "source": lease.source,
        "free_addresses": lease.subnet.num_addresses
        - sum(p.cidr.num_addresses for p in state.pools.values() if p.cidr.subnet_of(lease.subnet)),
    }


def _overlay(state: State) -> Reply | None:
    overlay, vtep = state.overlay, state.vtep
    if overlay is None or vtep is None or (state.lease and state.lease.source == "subnet-file"):
        return None
    return {
        "backend": overlay.backend,
        "vni": overlay.vni,
        "public_ip": str(vtep.public_ip),
        "mac": vtep.mac,
    }


def _peer(peer: Peer) -> Reply:
    return {"subnet": str(peer.subnet), "public_ip": str(peer.public_ip), "mac": peer.mac}


def _network(state: State, network: Network) -> Reply:
    block = network.gateway.network
    return {
        "id": network.id,
        "block": str(block),
        "gateway": str(network.gateway.ip),
        "docker_gateway": str(network.docker_gateway or network.gateway),
        "bridge": network.bridge,
        "mtu": network.mtu,
        "internal": network.internal,
        "used": sum(h.pool == network.pool for h in state.holds.values()),
        "usable": block.num_addresses - 2,
    }


def _endpoint(endpoint: Endpoint) -> Reply:
    return {
        "id": endpoint.id,
        "network": endpoint.network,
        "address": str(endpoint.ip),
        "docker_address": str(endpoint.shown_ip),
        "mac": endpoint.mac,
        "sandbox": endpoint.sandbox,
        "ports": [str(port) for port in endpoint.ports],
    }


def _warnings(core: Reconciler) -> Iterator[str]:
    state = core.state
    yield from misfits.too_large(state)
    if state.lease and state.overlay and state.lease.source == "etcd":
        peers = state.peers.values()
        yield from strays.warnings(state.overlay, state.lease.subnet, peers, core.facts)


def _problems(core: Reconciler, more: Iterable[str]) -> Iterator[str]:
    state = core.state
    yield from core.lease_status.problems
    yield from more
    yield from misfits.outside(state)
    if state.networks and not core.facts.forwarding and not core.facts.forwards:
        yield (
            "net.ipv4.ip_forward is 0: containers reach only this host; set it to 1, or have the "
            "plugin do so when Docker starts a container (DOCKER_FLANNEL_IP_FORWARD=1)"
        )
    if not core.facts.guards and any(map(on_localhost, state.endpoints.values())):
        yield (
            "127.0.0.1 leads to no container, for this kernel cannot guard it: load sch_ingress "
            "and cls_bpf and restart the plugin, or use another address of this host"
        )
    for name in sorted(core.facts.uplinks):
        if not nameable(name):
            yield (
                f"the firewall cannot take the name of bridge {name!a}, so containers do not "
                "leave this host by it: rename it"
            )
    if core.history.last is not None:
        yield from core.history.last.errors
    yield from core.contention.sentences()
