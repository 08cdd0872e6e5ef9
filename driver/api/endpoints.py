"""Docker's calls about endpoints and their ports: decode, edit, encode. All can be repeated.

Docker repeats calls that broke off, and deletes what is gone already.
Source: libnetwork's remote driver protocol.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from ipaddress import IPv4Interface

from driver.api import body
from driver.api.body import Body, Reply
from driver.core.addresses import Wish
from driver.core.bridge import mac_for
from driver.core.edit import Edit
from driver.core.publish import Binding, choose_ports
from driver.core.reconciler import Reconciler
from driver.errors import BadRequest, Conflict, Place
from driver.model.firewall import PortMap
from driver.model.records import (
    HOST_END_PREFIX,
    Endpoint,
    Network,
    Pool,
    PortMapping,
    State,
    replace,
    short,
)

log = logging.getLogger(__name__)

TRIES = 30  # each leaves out what it found taken, so few are ever needed
VIA = 0  # the route type with a next hop


def create_endpoint(core: Reconciler, req: Body) -> Reply:
    """Make an endpoint's veth pair.

    Request: NetworkID, EndpointID, Interface, Options.
    Reply: Interface with what was empty in the request; Docker refuses the other fields.
    """
    network_id, endpoint_id = req.object_id("NetworkID"), req.object_id("EndpointID")
    interface = req.part("Interface")
    ip, mac = interface.interface("Address"), interface.mac("MacAddress")
    if interface.text("AddressIPv6", needed=False):
        raise BadRequest("the endpoint has an IPv6 address, and the network has no IPv6")
    made = core.retry(lambda: _put_endpoint(core, endpoint_id, network_id, ip, mac), ip)
    filled = {} if mac else {"MacAddress": made.mac}
    return {"Interface": filled if ip else {"Address": str(made.ip), **filled}}


def _put_endpoint(
    core: Reconciler, endpoint_id: str, network_id: str, ip: IPv4Interface | None, mac: str
) -> Endpoint:
    with core.edit() as edit:
        network = edit.network(network_id)
        known = edit.state.endpoints.get(endpoint_id)
        if known is not None:
            same = known.network == network_id and ip in (known.shown_ip, None)
            if not same or mac not in (known.mac, ""):
                raise Conflict(f"endpoint {short(endpoint_id)} exists already, with other settings")
            return known
        pool = edit.state.pools.get(network.pool)
        if pool and pool.owner == "adopted":  # this plugin's IPAM was not asked for the address
            adopted, pool = pool, pool.owned("docker" if ip else "network", network_id)
            edit.rename(adopted, pool)
            network = edit.network(network_id)
        beside = _inside(ip, network.docker_gateway) if network.docker_gateway else None
        own = pool if pool and pool.owner == "network" else None
        if ip and (beside or not own):
            _drop_unjoined(edit, network_id, ip)
        if own:
            core.takeover.check_seen(network)
            owner = str(beside.ip) if beside else mac
            place = _taken(edit, own, Wish(None if beside or not ip else ip.ip, owner))
        else:
            place = _inside(ip, network.gateway)
        mac = mac or mac_for(place.ip)
        made = Endpoint(endpoint_id, network_id, place, mac, edit.now, docker_ip=beside)
        _check_free(edit, made)
        edit.put(made)
    return made


def _drop_unjoined(edit: Edit, network_id: str, ip: IPv4Interface) -> None:
    """Drop an endpoint whose call broke off: no IPAM driver assigns an address twice."""
    for other in edit.state.endpoints_of(network_id):
        if other.shown_ip == ip and other.sandbox is None:
            log.info("endpoint %s was never joined: dropped", short(other.id))
            edit.drop(other)


def _inside(ip: IPv4Interface | None, gateway: IPv4Interface) -> IPv4Interface:
    if ip is None:
        raise BadRequest("Interface.Address is empty; the network's IPAM driver gives it")
    if ip.ip not in gateway.network:
        raise BadRequest(f"Interface.Address {ip} is not inside the network's {gateway.network}")
    return ip


def _taken(edit: Edit, pool: Pool, wish: Wish) -> IPv4Interface:
    """Take an address of the driver's own block; it goes with the endpoint."""
    hold = edit.take_address(pool, wish)
    edit.put(replace(hold, released=True))
    return IPv4Interface((hold.ip, pool.cidr.prefixlen))


def _check_free(edit: Edit, endpoint: Endpoint) -> None:
    for other in edit.state.endpoints_of(endpoint.network):
        if other.shown_ip.ip == endpoint.shown_ip.ip:
            ip, user = other.shown_ip.ip, short(other.id)
            raise Conflict(f"address {ip} is in use by endpoint {user}; choose another")


def delete_endpoint(core: Reconciler, req: Body) -> Reply:
    """Remove an endpoint's veth pair and ports.

    Request: NetworkID, EndpointID.  Reply: empty.
    """
    endpoint_id = req.object_id("EndpointID")
    with core.edit() as edit:
        known = edit.state.endpoints.get(endpoint_id)
        if known is not None:
            edit.drop(known)
    if known is None:
        core.remove_unknown(endpoint_id)
    return {}


def join(core: Reconciler, req: Body) -> Reply:
    """Remember the sandbox; return the container end and the routes out.

    Request: NetworkID, EndpointID, SandboxKey, Options.
    Reply: InterfaceName and one of these: Gateway; StaticRoutes, if Docker is to attach the
    container to its own bridge, too, and publish ports there; DisableGatewayService, if internal.
    """
    endpoint_id, sandbox = req.object_id("EndpointID"), req.path("SandboxKey")
    with core.edit() as edit:
        network = edit.network(req.object_id("NetworkID"))
        endpoint = replace(edit.endpoint(endpoint_id), sandbox=sandbox)
        if endpoint.network != network.id:
            raise Conflict(f"endpoint {short(endpoint_id)} is not on network {short(network.id)}")
        edit.put(endpoint)
    names = {"SrcName": endpoint.container_end, "DstPrefix": network.interface_prefix}
    if network.internal:
        return {"InterfaceName": names, "DisableGatewayService": True}
    if network.publish == "docker":
        return {"InterfaceName": names, "StaticRoutes": _way_to_the_overlay(edit.state, network)}
    # beside an address of Docker's, the lease address comes later: its gateway is unreachable yet
    gateway = network.docker_gateway or network.gateway
    return {"InterfaceName": names, "Gateway": str(gateway.ip)}


def _way_to_the_overlay(state: State, network: Network) -> list[Reply]:
    """Return the routes to other hosts' containers, unless they come later with a lease address.

    They leave out this host's own lease: Docker refuses to connect a container to a network that
    one of its routes covers, and this host's other networks are closed to it anyway.
    """
    if state.lease is None or network.docker_gateway is not None:
        return []
    lease, gateway = state.lease, str(network.gateway.ip)
    others = sorted(lease.network.address_exclude(lease.subnet))
    return [{"Destination": str(o), "RouteType": VIA, "NextHop": gateway} for o in others]


def program(core: Reconciler, req: Body) -> Reply:
    """Publish an endpoint's ports, in place of those it had.

    Of a range, a port that another program uses is skipped: a socket shows that it is taken.
    Request: NetworkID, EndpointID, Options.  Reply: empty.
    """
    endpoint_id = req.object_id("EndpointID")
    wanted = body.bindings(req.part("Options"), core.survey.ephemeral_ports)
    core.retry(lambda: _publish(core, endpoint_id, wanted))
    _set_address(core, endpoint_id)
    return {}


def populated(core: Reconciler, req: Body) -> None:
    """Handle EndpointOperInfo: Docker 28 has put the interface into the sandbox."""
    _set_address(core, req.object_id("EndpointID"))


def _set_address(core: Reconciler, endpoint_id: str) -> None:
    core.set_sandbox_addresses(frozenset({f"{HOST_END_PREFIX}{short(endpoint_id)}"}))


def _publish(core: Reconciler, endpoint_id: str, wanted: Sequence[Binding]) -> None:
    tried: set[Place] = set()
    ports: tuple[PortMapping, ...] = ()
    for left in reversed(range(TRIES)):
        try:
            with core.edit() as edit:
                endpoint = edit.endpoint(endpoint_id)
                network = edit.network(endpoint.network)
                if network.internal or network.publish == "docker":
                    return
                if ports:  # keep those that were free
                    edit.put(replace(endpoint, ports=ports))
                ports = choose_ports(edit.state, endpoint_id, wanted, secrets.choice, tried)
                edit.put(replace(endpoint, ports=ports))
            _log_chosen(endpoint_id, wanted, ports)
            break
        except Conflict as error:
            tried.update(error.taken)
            if not left or not error.taken:
                raise


def _log_chosen(endpoint_id: str, wanted: Sequence[Binding], ports: Sequence[PortMapping]) -> None:
    """Log which host port was chosen from a range: Docker never learns it."""
    fixed = {(b.proto, b.host_ip, b.first, b.port) for b in wanted if b.fixed}
    for port in ports:
        if (port.proto, port.host_ip, port.host_port, port.port) not in fixed:
            log.info("endpoint %s has host port %s", short(endpoint_id), port)


def revoke(core: Reconciler, req: Body) -> Reply:
    """Unpublish an endpoint's ports.

    Request: NetworkID, EndpointID.  Reply: empty.
    """
    endpoint_id = req.object_id("EndpointID")
    with core.edit() as edit:
        endpoint = edit.state.endpoints.get(endpoint_id)
        if endpoint is not None and endpoint.ports:
            edit.put(replace(endpoint, ports=()))
    if endpoint is None:
        core.remove_unknown(endpoint_id, (PortMap,))
    return {}
