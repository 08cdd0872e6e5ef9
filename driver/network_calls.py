"""Docker's network calls: decode, edit, encode. Each can be made twice.

Docker repeats what broke off, and deletes what is gone already.
Source: libnetwork's remote driver protocol.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from driver import wire
from driver.edit import DOCKER_POOL, Edit
from driver.errors import BadRequest, Conflict
from driver.ipam import PoolRequest, take_pool
from driver.model import Endpoint, Network, Pool, mac_for, replace
from driver.network_options import network_options
from driver.ports import Binding, choose_ports
from driver.reconcile import Reconciler
from driver.wire import SPACE, Body, Reply

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 10


def create_network(core: Reconciler, req: Body) -> Reply:
    """Make a network's bridge and rules.

    Request: NetworkID, Options, IPv4Data, IPv6Data.  Reply: empty.
    """
    network_id, options = req.object_id("NetworkID"), req.part("Options")
    if options.flag(wire.ENABLE_IPV6) or req.parts("IPv6Data"):
        raise BadRequest("IPv6 was asked for, but this host's flannel lease has no IPv6 subnet")
    blocks = req.parts("IPv4Data")
    if len(blocks) != 1:
        raise BadRequest(f"the network has {len(blocks)} IPv4 subnets; it can have exactly one")
    gateway = blocks[0].interface("Gateway")
    if gateway is None:
        raise BadRequest("IPv4Data.Gateway is missing; it is the bridge's address")
    with core.edit() as edit:
        pool = _pool_of(edit, network_id, blocks[0])
        if gateway.network != pool.cidr:
            raise BadRequest(f"gateway {gateway} is not of the network's subnet {pool.cidr}")
        lease_mtu = edit.state.lease.mtu if edit.state.lease else 0
        network = Network(
            network_id,
            pool.id,
            gateway,
            internal=options.flag(wire.INTERNAL),
            **network_options(options.part(wire.GENERIC), lease_mtu),
        )
        known = edit.state.networks.get(network_id)
        if known is None:
            edit.take(pool)
            _mark_aux(edit, pool, blocks[0].part("AuxAddresses"))
            edit.put(network)
        elif known != network:
            raise Conflict(f"network {network_id[:12]} exists already, with other settings")
    return {}


def _pool_of(edit: Edit, network_id: str, block: Body) -> Pool:
    """Find the pool our IPAM gave for a network, or take in one that Docker's own IPAM chose."""
    cidr = block.prefix("Pool")
    if cidr is None:
        raise BadRequest("IPv4Data.Pool is missing; it is the network's subnet")
    known = edit.state.networks.get(network_id)
    if known is not None and known.pool in edit.state.pools:
        return edit.state.pools[known.pool]
    if block.text("AddressSpace", needed=False) == SPACE:
        for pool in edit.state.pools.values():
            if pool.cidr == cidr and edit.state.network_of(pool.id) is None:
                return pool
        raise BadRequest(f"subnet {cidr} was not given out by this plugin's IPAM")
    lease = edit.state.lease
    if lease is not None and not cidr.subnet_of(lease.subnet):
        raise BadRequest(
            f"Docker's own IPAM chose {cidr}, which is not inside this host's flannel lease "
            f"{lease.subnet}; add `--ipam-driver flannel` (compose: `ipam: {{driver: flannel}}`)"
        )
    pool = take_pool(edit.state, PoolRequest(cidr), (), "", edit.now)
    return replace(pool, id=f"{DOCKER_POOL}{network_id}")


def _mark_aux(edit: Edit, pool: Pool, aux: Body) -> None:
    """Tell the reserved addresses from those of containers: Docker asked for both alike."""
    reserved = {text.partition("/")[0] for text in aux.texts().values()}
    for hold in edit.state.holds.values():
        if hold.pool == pool.id and str(hold.ip) in reserved:
            edit.put(replace(hold, why="aux"))


def delete_network(core: Reconciler, req: Body) -> Reply:
    """Remove a network's bridge and rules, with what is left of its endpoints.

    Request: NetworkID.  Reply: empty.
    """
    network_id = req.object_id("NetworkID")
    with core.edit() as edit:
        if network_id in edit.state.networks:
            edit.drop(edit.state.networks[network_id])
    return {}


def create_endpoint(core: Reconciler, req: Body) -> Reply:
    """Make an endpoint's veth pair.

    Request: NetworkID, EndpointID, Interface, Options.
    Reply: Interface with what was empty in the request; an echo of a value is an error to Docker.
    """
    network_id, endpoint_id = req.object_id("NetworkID"), req.object_id("EndpointID")
    interface = req.part("Interface")
    ip, mac = interface.interface("Address"), interface.mac("MacAddress")
    if interface.text("AddressIPv6", needed=False):
        raise BadRequest("the endpoint has an IPv6 address, and the network has no IPv6")
    if ip is None:
        raise BadRequest("Interface.Address is empty; networks without IPv4 are not supported")
    endpoint = Endpoint(endpoint_id, network_id, ip, mac or mac_for(ip.ip), core.clock())
    _unburied(core, lambda: _put_endpoint(core, endpoint))
    return {"Interface": {} if mac else {"MacAddress": endpoint.mac}}


def _put_endpoint(core: Reconciler, endpoint: Endpoint) -> None:
    with core.edit() as edit:
        network = edit.network(endpoint.network)
        block = network.gateway.network
        if endpoint.ip.ip not in block:
            raise BadRequest(f"Interface.Address {endpoint.ip} is not inside the network's {block}")
        known = edit.state.endpoints.get(endpoint.id)
        if known is None:
            _check_free(edit, endpoint)
            edit.put(endpoint)
        elif (known.network, known.ip, known.mac) != (endpoint.network, endpoint.ip, endpoint.mac):
            raise Conflict(f"endpoint {endpoint.id[:12]} exists already, with other settings")


def _unburied(core: Reconciler, act: Callable[[], None]) -> None:
    """Act; once more if what stood in the way died unheard.

    Docker with its own IPAM never tells of the endpoints it lost in a crash, and at once starts
    the containers anew with the same addresses and ports.
    """
    try:
        act()
    except Conflict:
        if not core.bury():
            raise
        act()


def _check_free(edit: Edit, endpoint: Endpoint) -> None:
    for other in edit.state.endpoints_of(endpoint.network):
        if other.ip.ip == endpoint.ip.ip:
            raise Conflict(f"address {endpoint.ip.ip} is in use by endpoint {other.id[:12]}")


def delete_endpoint(core: Reconciler, req: Body) -> Reply:
    """Remove an endpoint's veth pair and ports.

    Request: NetworkID, EndpointID.  Reply: empty.
    """
    endpoint_id = req.object_id("EndpointID")
    with core.edit() as edit:
        if endpoint_id in edit.state.endpoints:
            edit.drop(edit.state.endpoints[endpoint_id])
    return {}


def join(core: Reconciler, req: Body) -> Reply:
    """Remember the sandbox; name the container end, and the gateway unless it is internal.

    Request: NetworkID, EndpointID, SandboxKey, Options.  Reply: InterfaceName, Gateway.
    """
    endpoint_id, sandbox = req.object_id("EndpointID"), req.text("SandboxKey")
    with core.edit() as edit:
        network = edit.network(req.object_id("NetworkID"))
        endpoint = replace(edit.endpoint(endpoint_id), sandbox=sandbox)
        if endpoint.network != network.id:
            raise Conflict(f"endpoint {endpoint_id[:12]} is not on network {network.id[:12]}")
        edit.put(endpoint)
    names = {"SrcName": endpoint.container_end, "DstPrefix": network.interface_prefix}
    if network.internal:
        return {"InterfaceName": names, "DisableGatewayService": True}
    return {"InterfaceName": names, "Gateway": str(network.gateway.ip)}


def leave(core: Reconciler, req: Body) -> Reply:
    """Take the ports back; the veth goes with DeleteEndpoint.

    Request: NetworkID, EndpointID.  Reply: empty.
    """
    return revoke(core, req)


def program(core: Reconciler, req: Body) -> Reply:
    """Publish an endpoint's ports, in place of those it had.

    A port out of a range is proved by a socket: one that another program has is passed over.
    Request: NetworkID, EndpointID, Options.  Reply: empty.
    """
    endpoint_id = req.object_id("EndpointID")
    low, high = map(int, EPHEMERAL.read_text().split())
    wanted = wire.bindings(req.part("Options"), (low, high))
    _unburied(core, lambda: _publish(core, endpoint_id, wanted))
    return {}


def _publish(core: Reconciler, endpoint_id: str, wanted: Sequence[Binding]) -> None:
    tried: set[int] = set()
    for left in reversed(range(TRIES)):
        try:
            with core.edit() as edit:
                endpoint = edit.endpoint(endpoint_id)
                if edit.network(endpoint.network).internal:
                    return
                ports = choose_ports(edit.state, endpoint_id, wanted, secrets.choice, tried)
                edit.put(replace(endpoint, ports=ports))
            break
        except Conflict as error:
            tried.add(error.port)
            if not left or not error.port or any(b.fixed and b.first == error.port for b in wanted):
                raise


def revoke(core: Reconciler, req: Body) -> Reply:
    """Take an endpoint's ports back.

    Request: NetworkID, EndpointID.  Reply: empty.
    """
    endpoint_id = req.object_id("EndpointID")
    with core.edit() as edit:
        endpoint = edit.state.endpoints.get(endpoint_id)
        if endpoint is not None and endpoint.ports:
            edit.put(replace(endpoint, ports=()))
    return {}


def swarm_only(_core: Reconciler, _req: Body) -> Reply:
    """Refuse a call that only a swarm manager makes (AllocateNetwork, FreeNetwork)."""
    raise BadRequest("swarm-scoped networks are not supported; make the network on each host")
