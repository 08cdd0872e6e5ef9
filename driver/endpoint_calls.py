"""Docker's calls about endpoints and their ports: decode, edit, encode. Each can be made twice.

Docker repeats what broke off, and deletes what is gone already.
Source: libnetwork's remote driver protocol.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from driver import wire
from driver.edit import Edit
from driver.errors import BadRequest, Conflict
from driver.model import Endpoint, mac_for, replace
from driver.ports import Binding, choose_ports
from driver.reconcile import Reconciler
from driver.wire import Body, Reply

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 10


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
