"""Docker's calls about networks: decode, edit, encode. All can be repeated.

Docker repeats calls that broke off, and deletes what is gone already.
Source: libnetwork's remote driver protocol.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

from driver.api import body
from driver.api.body import Body, Reply
from driver.api.options import SIZE, block_prefix, network_options
from driver.core.addresses import Wish, take_address
from driver.core.edit import Edit
from driver.core.reconciler import Reconciler
from driver.errors import BadRequest, Conflict
from driver.ipam import PoolRequest, lease_of, take_pool
from driver.model.records import Hold, Network, Pool, pool_id, replace, short
from driver.standin import SPACE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Given:
    """What an IPAM driver chose for a network.

    `ours`: it was this plugin's. `inside`: the subnet must be inside the lease.
    """

    cidr: IPv4Network
    gateway: IPv4Interface
    ours: bool
    reserved: frozenset[str]
    inside: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A network's block and gateway. `hold`: of the gateway, if the driver assigns addresses.

    `docker_gateway`: of Docker's own subnet beside the block.
    """

    pool: Pool
    gateway: IPv4Interface
    hold: Hold | None = None
    docker_gateway: IPv4Interface | None = None


def create_network(core: Reconciler, req: Body, *, require_ipam: bool = False) -> Reply:
    """Make a network's bridge and rules.

    `require_ipam`: refuse a network that Docker's own IPAM put outside the lease.
    Request: NetworkID, Options, IPv4Data, IPv6Data.  Reply: empty.
    """
    network_id, options = req.object_id("NetworkID"), req.part("Options")
    if options.flag(body.ENABLE_IPV6) or req.parts("IPv6Data"):
        raise BadRequest("IPv6 was asked for, but this host's flannel lease has no IPv6 subnet")
    given = _given(req, options, inside=require_ipam)
    core.retry(lambda: _put_network(core, network_id, given, options))
    return {}


def _put_network(core: Reconciler, network_id: str, given: _Given | None, options: Body) -> None:
    generic = options.part(body.GENERIC)
    with core.edit() as edit:
        chosen = network_options(generic, lease_of(edit.state).mtu)
        place = _place(core, edit, network_id, given, block_prefix(generic))
        network = Network(
            network_id,
            place.pool.id,
            place.gateway,
            internal=options.flag(body.INTERNAL),
            docker_gateway=place.docker_gateway,
            **chosen,
        )
        known = edit.state.networks.get(network_id)
        if known is None:
            edit.take(place.pool, place.hold)
            _mark_aux(edit, place.pool, given.reserved if given else frozenset())
            edit.put(network)
        elif known != network:
            raise Conflict(f"network {short(network_id)} exists already, with other settings")
    if known is None and place.docker_gateway:
        log.info(
            "network=%s containers get addresses of %s beside Docker's own of %s; better is one "
            "address: --ipam-driver flannel (compose: ipam: {driver: flannel}), or on Docker 28 "
            "and later what `docker-flannel setup-daemon` sets",
            *(short(network_id), place.gateway.network, place.docker_gateway.network),
        )


def _given(req: Body, options: Body, *, inside: bool) -> _Given | None:
    """Read what an IPAM driver chose; None without IPv4 or with Docker's `null` driver.

    Source: libnetwork; Docker 28 and later can leave IPv4 out.
    """
    blocks = req.parts("IPv4Data")
    if not blocks and not options.flag(body.ENABLE_IPV4, absent=True):
        return None
    if len(blocks) != 1:
        raise BadRequest(f"the network has {len(blocks)} IPv4 subnets; it can have exactly one")
    block = blocks[0]
    space = block.text("AddressSpace", needed=False)
    if space == body.NO_SPACE:
        return None
    gateway, cidr = block.interface("Gateway"), block.prefix("Pool")
    if gateway is None:
        raise BadRequest("IPv4Data.Gateway is missing; it is the bridge's address")
    if cidr is None:
        raise BadRequest("IPv4Data.Pool is missing; it is the network's subnet")
    aux = block.part("AuxAddresses").texts().values()
    reserved = frozenset(text.partition("/")[0] for text in aux)
    return _Given(cidr, gateway, space == SPACE, reserved, inside)


def _place(
    core: Reconciler, edit: Edit, network_id: str, given: _Given | None, prefix: int | None
) -> _Place:
    """Return a network's block: the one an IPAM driver chose, or a new one."""
    if given is None:
        return _own_block(core, edit, network_id, prefix)
    if _is_foreign(edit, network_id, given):
        _check_foreign(edit, network_id, given)
        own = _own_block(core, edit, network_id, prefix)
        return replace(own, docker_gateway=given.gateway)
    if prefix is not None:
        raise BadRequest(f"option -o {SIZE} is for networks without IPAM; use --ipam-opt {SIZE}")
    pool = _pool_of(edit, network_id, given)
    if given.gateway.network != pool.cidr:
        raise BadRequest(f"gateway {given.gateway} is not of the network's subnet {pool.cidr}")
    return _Place(pool, given.gateway)


def _is_foreign(edit: Edit, network_id: str, given: _Given) -> bool:
    """Whether Docker's own IPAM chose a subnet that has nothing to do with the lease."""
    known, lease = edit.state.networks.get(network_id), edit.state.lease
    if known is not None:
        return known.docker_gateway is not None
    return not given.ours and lease is not None and not given.cidr.subnet_of(lease.subnet)


def _check_foreign(edit: Edit, network_id: str, given: _Given) -> None:
    cidr, lease = given.cidr, edit.state.lease
    if given.inside:
        raise BadRequest(
            f"Docker's own IPAM chose {cidr}, which is not inside this host's flannel lease "
            f"{lease and lease.subnet}, and DOCKER_FLANNEL_REQUIRE_IPAM is set; add "
            "`--ipam-driver flannel` (compose, below `driver: flannel`: `ipam: {driver: flannel}`)"
        )
    if lease and cidr.overlaps(lease.network):
        raise BadRequest(
            f"subnet {cidr} overlaps the flannel network {lease.network} and is not inside this "
            f"host's lease {lease.subnet}; choose a part of the lease, or leave --subnet out"
        )
    if given.gateway.network != cidr:
        raise BadRequest(f"gateway {given.gateway} is not of the network's subnet {cidr}")
    _drop_forgotten(edit, network_id, cidr)


def _drop_forgotten(edit: Edit, network_id: str, cidr: IPv4Network) -> None:
    """Drop networks whose subnet Docker's own IPAM assigns again: Docker no longer has them.

    Docker silently forgets what it could not create or remove while the plugin was stopped.
    """
    for other in list(edit.state.networks.values()):
        theirs = _dockers_subnet(edit, other)
        if other.id == network_id or not (theirs and theirs.overlaps(cidr)):
            continue
        if any(endpoint.sandbox for endpoint in edit.state.endpoints_of(other.id)):
            raise Conflict(
                f"subnet {cidr} overlaps {theirs} of network {short(other.id)}; if Docker does "
                f"not list that, `docker flannel forget {short(other.id)}`"
            )
        log.info("network=%s: Docker has forgotten it and assigned %s again", short(other.id), cidr)
        edit.drop(other)


def _dockers_subnet(edit: Edit, network: Network) -> IPv4Network | None:
    pool = edit.state.pools.get(network.pool)
    if pool and pool.owner == "docker":
        return network.gateway.network
    return network.docker_gateway.network if network.docker_gateway else None


def _own_block(core: Reconciler, edit: Edit, network_id: str, prefix: int | None) -> _Place:
    """Choose the block and gateway of a network whose addresses the driver assigns."""
    pool = edit.state.pools.get(pool_id("network", network_id))
    if pool is None:
        used = core.used_prefixes()
        pool = take_pool(edit.state, PoolRequest(prefix=prefix), used, "", edit.now)
        pool = pool.owned("network", network_id)
    hold = take_address(edit.state, pool, Wish(gateway=True), edit.now).hold
    return _Place(pool, IPv4Interface((hold.ip, pool.cidr.prefixlen)), hold)


def _pool_of(edit: Edit, network_id: str, given: _Given) -> Pool:
    """Return the pool our IPAM chose for a network, or a new one for what Docker's own chose."""
    cidr = given.cidr
    known = edit.state.networks.get(network_id)
    if known is not None and known.pool in edit.state.pools:
        return edit.state.pools[known.pool]
    if given.ours:
        for pool in edit.state.pools.values():
            if pool.cidr == cidr and edit.state.network_of(pool.id) is None:
                return pool
        raise BadRequest(f"subnet {cidr} was not given out by this plugin's IPAM")
    _drop_forgotten(edit, network_id, cidr)
    pool = take_pool(edit.state, PoolRequest(cidr), {}, "", edit.now)
    return pool.owned("docker", network_id)


def _mark_aux(edit: Edit, pool: Pool, reserved: frozenset[str]) -> None:
    """Mark the reserved addresses: Docker requested them like those of containers."""
    for hold in edit.state.holds.values():
        if hold.pool == pool.id and str(hold.ip) in reserved:
            edit.put(replace(hold, why="aux"))


def delete_network(core: Reconciler, req: Body) -> Reply:
    """Remove a network's bridge and rules, with its remaining endpoints.

    Request: NetworkID.  Reply: empty.
    """
    network_id = req.object_id("NetworkID")
    with core.edit() as edit:
        known = edit.state.networks.get(network_id)
        if known is not None:
            edit.drop(known)
    if known is None:
        core.remove_unknown(network_id)
    return {}


def swarm_only(_core: Reconciler, _req: Body) -> Reply:
    """Refuse a call that only a swarm manager makes (AllocateNetwork, FreeNetwork)."""
    raise BadRequest("swarm-scoped networks are not supported; make the network on each host")
