"""Docker's calls about networks: decode, edit, encode. Each can be made twice.

Docker repeats what broke off, and deletes what is gone already.
Source: libnetwork's remote driver protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

from driver import wire
from driver.edit import DOCKER_POOL, OWN_POOL, Edit
from driver.errors import BadRequest, Conflict
from driver.ipam import PoolRequest, take_address, take_pool
from driver.model import Hold, Network, Pool, replace
from driver.network_options import SIZE, block_prefix, network_options
from driver.reconcile import Reconciler
from driver.wire import SPACE, Body, Reply


@dataclass(frozen=True, slots=True)
class _Given:
    """What an IPAM driver chose for a network; `ours`: it was this plugin's."""

    cidr: IPv4Network
    gateway: IPv4Interface
    ours: bool
    reserved: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Place:
    """A network's block and gateway; `hold` is the gateway's where the driver gives addresses."""

    pool: Pool
    gateway: IPv4Interface
    hold: Hold | None = None


def create_network(core: Reconciler, req: Body) -> Reply:
    """Make a network's bridge and rules.

    Request: NetworkID, Options, IPv4Data, IPv6Data.  Reply: empty.
    """
    network_id, options = req.object_id("NetworkID"), req.part("Options")
    if options.flag(wire.ENABLE_IPV6) or req.parts("IPv6Data"):
        raise BadRequest("IPv6 was asked for, but this host's flannel lease has no IPv6 subnet")
    given, generic = _given(req, options), options.part(wire.GENERIC)
    with core.edit() as edit:
        lease_mtu = edit.state.lease.mtu if edit.state.lease else 0
        chosen = network_options(generic, lease_mtu)
        place = _place(core, edit, network_id, given, block_prefix(generic))
        network = Network(
            network_id,
            place.pool.id,
            place.gateway,
            internal=options.flag(wire.INTERNAL),
            **chosen,
        )
        known = edit.state.networks.get(network_id)
        if known is None:
            edit.take(place.pool, place.hold)
            _mark_aux(edit, place.pool, given.reserved if given else frozenset())
            edit.put(network)
        elif known != network:
            raise Conflict(f"network {network_id[:12]} exists already, with other settings")
    return {}


def _given(req: Body, options: Body) -> _Given | None:
    """Read what an IPAM driver chose; None where none did: without IPv4, or with Docker's `null`.

    Source: libnetwork; Docker 28 and later can leave IPv4 out.
    """
    blocks = req.parts("IPv4Data")
    if not blocks and not options.flag(wire.ENABLE_IPV4, absent=True):
        return None
    if len(blocks) != 1:
        raise BadRequest(f"the network has {len(blocks)} IPv4 subnets; it can have exactly one")
    block = blocks[0]
    space = block.text("AddressSpace", needed=False)
    if space == wire.NO_SPACE:
        return None
    gateway, cidr = block.interface("Gateway"), block.prefix("Pool")
    if gateway is None:
        raise BadRequest("IPv4Data.Gateway is missing; it is the bridge's address")
    if cidr is None:
        raise BadRequest("IPv4Data.Pool is missing; it is the network's subnet")
    aux = block.part("AuxAddresses").texts().values()
    reserved = frozenset(text.partition("/")[0] for text in aux)
    return _Given(cidr, gateway, space == SPACE, reserved)


def _place(
    core: Reconciler, edit: Edit, network_id: str, given: _Given | None, prefix: int | None
) -> _Place:
    """Find a network's block: the one it was given, or one of the driver's choice."""
    if given is None:
        return _own_block(core, edit, network_id, prefix)
    if prefix is not None:
        raise BadRequest(f"option -o {SIZE} is for networks without IPAM; use --ipam-opt {SIZE}")
    pool = _pool_of(edit, network_id, given)
    if given.gateway.network != pool.cidr:
        raise BadRequest(f"gateway {given.gateway} is not of the network's subnet {pool.cidr}")
    return _Place(pool, given.gateway)


def _own_block(core: Reconciler, edit: Edit, network_id: str, prefix: int | None) -> _Place:
    """Choose the block of a network whose addresses the driver gives, and its gateway."""
    pool = edit.state.pools.get(f"{OWN_POOL}{network_id}")
    if pool is None:
        onlink = core.survey().onlink
        pool = take_pool(edit.state, PoolRequest(prefix=prefix), onlink, "", edit.now)
        pool = replace(pool, id=f"{OWN_POOL}{network_id}")
    pool, hold = take_address(edit.state, pool, None, "gateway", edit.now)
    return _Place(pool, IPv4Interface((hold.ip, pool.cidr.prefixlen)), hold)


def _pool_of(edit: Edit, network_id: str, given: _Given) -> Pool:
    """Find the pool our IPAM gave for a network, or take in one that Docker's own IPAM chose."""
    cidr = given.cidr
    known = edit.state.networks.get(network_id)
    if known is not None and known.pool in edit.state.pools:
        return edit.state.pools[known.pool]
    if given.ours:
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


def _mark_aux(edit: Edit, pool: Pool, reserved: frozenset[str]) -> None:
    """Tell the reserved addresses from those of containers: Docker asked for both alike."""
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
