"""Docker's calls about networks: decode, edit, encode. Each can be made twice.

Docker repeats what broke off, and deletes what is gone already.
Source: libnetwork's remote driver protocol.
"""

from __future__ import annotations

from driver import wire
from driver.edit import DOCKER_POOL, Edit
from driver.errors import BadRequest, Conflict
from driver.ipam import PoolRequest, take_pool
from driver.model import Network, Pool, replace
from driver.network_options import network_options
from driver.reconcile import Reconciler
from driver.wire import SPACE, Body, Reply


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


def swarm_only(_core: Reconciler, _req: Body) -> Reply:
    """Refuse a call that only a swarm manager makes (AllocateNetwork, FreeNetwork)."""
    raise BadRequest("swarm-scoped networks are not supported; make the network on each host")
