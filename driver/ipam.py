"""Choose a network's block of the lease. Pure.

A block is a network's own part of the lease, with its real mask.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from driver.errors import BadRequest, Conflict, Exhausted, NoLease
from driver.model.records import Lease, Pool, State, short

LARGEST_DEFAULT = 26  # prefix lengths: of a block whose size nobody requested,
SMALLEST_DEFAULT = 29  # of such a block when the lease runs low,
SMALLEST = 30  # of a block whose size was requested
DOCKER0 = "docker0"  # the bridge of Docker's own network
BURST_S = 2.0
BURST = 8


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """A request for a certain block, or any (`cidr` None) of a certain or any size (`prefix`)."""

    cidr: IPv4Network | None = None
    sub: IPv4Network | None = None
    prefix: int | None = None


def take_pool(
    state: State, want: PoolRequest, used: Mapping[IPv4Network, str], serial: str, now: float
) -> Pool:
    """Choose the block for a new network.

    `used`: prefixes that the host uses otherwise, each with the link that has it, or ""; `serial`
    makes the pool's id unique.
    Errors: Unavailable without a lease; BadRequest, Conflict, Exhausted.
    """
    lease = lease_of(state)
    check_held(lease)
    if want.cidr is None:
        _check_burst(state, now)
        cidr = _free_block(state, lease, want.prefix, used)
    else:
        cidr = want.cidr
        _check_block(state, lease, cidr, used)
        if want.sub is not None and not want.sub.subnet_of(cidr):
            raise BadRequest(f"--ip-range {want.sub} is not inside --subnet {cidr}")
    return Pool(f"{cidr}/{serial}", cidr, want.sub, None, now, automatic=want.cidr is None)


def lease_of(state: State) -> Lease:
    """Return this host's lease. Errors: NoLease."""
    if state.lease is None:
        raise NoLease("this host has no flannel lease yet")
    return state.lease


def check_inside(lease: Lease, cidr: IPv4Network) -> None:
    """Refuse a block that is not this host's."""
    if not cidr.subnet_of(lease.subnet):
        raise BadRequest(
            f"subnet {cidr} is not inside this host's flannel lease {lease.subnet}; choose a part "
            "of the lease, or leave --subnet out to be given one"
        )


def _check_block(
    state: State, lease: Lease, cidr: IPv4Network, used: Mapping[IPv4Network, str]
) -> None:
    check_inside(lease, cidr)
    if cidr.prefixlen > SMALLEST:
        raise BadRequest(f"subnet {cidr} is too small for a network; /{SMALLEST} is the smallest")
    for block, holder in _blocks(state).items():
        if block.overlaps(cidr):
            raise Conflict(f"subnet {cidr} overlaps {block} of {holder}")
    for prefix in _foreign(lease, used):
        if prefix.overlaps(cidr):
            link = used[prefix]
            where = f"{prefix} on {link}" if link else f"{prefix}"
            raise Conflict(
                f"subnet {cidr} overlaps {where}, which this host already uses{_cure([link])}"
            )


def _foreign(lease: Lease, used: Mapping[IPv4Network, str]) -> list[IPv4Network]:
    """Leave out the lease's first address: flannel's device has it, and no container gets it."""
    return [p for p in used if p != IPv4Network(lease.subnet.network_address)]


def _cure(links: Collection[str]) -> str:
    """Return what to do about links that have parts of the lease; "" where only their owner knows.

    Source: moby, daemon/config: --bip and "bip" set the prefix of docker0.
    """
    if DOCKER0 not in links:
        return ""
    return (
        f"; {DOCKER0} has its prefix from --bip on dockerd's command line or from bip in "
        "daemon.json: `docker-flannel migrate` shows how to move it"
    )


def _check_burst(state: State, now: float) -> None:
    """Stop dockerd's endless loop.

    When a pool overlaps a route or name server of the host, dockerd at once requests another,
    keeping the first, without limit (libnetwork, RequestPool). For a pool that it uses, it requests
    a gateway before the next pool.
    """
    unclaimed = [p for p in unclaimed_pools(state) if p.automatic and now - p.since < BURST_S]
    if len(unclaimed) >= BURST:
        raise Conflict(
            f"{len(unclaimed)} blocks were asked for and not used within {BURST_S:.0f} s, the last "
            f"{unclaimed[-1].cidr}; they overlap routes or name servers of this host: name a free "
            "one with --subnet"
        )


def unclaimed_pools(state: State) -> list[Pool]:
    """List the pools without network and address: they were requested and not used."""
    held = {hold.pool for hold in state.holds.values()}
    used = {network.pool for network in state.networks.values()}
    return [p for p in state.pools.values() if p.id not in held and p.id not in used]


def _free_block(
    state: State, lease: Lease, prefix: int | None, used: Mapping[IPv4Network, str]
) -> IPv4Network:
    """Choose a free block of the wanted size, or of an eighth of the lease or smaller.

    Released blocks come last, of these the longest unused first.
    """
    shortest = lease.subnet.prefixlen
    if prefix is not None and not shortest <= prefix <= SMALLEST:
        raise BadRequest(f"flannel.size /{prefix} is not between /{shortest} and /{SMALLEST}")
    last, default = max(SMALLEST_DEFAULT, shortest), default_prefix(lease.subnet)
    blocks = _blocks(state)
    foreign = _foreign(lease, used)
    taken = [*foreign, *blocks]
    for size in [prefix] if prefix is not None else range(default, last + 1):
        free = [
            block
            for block in lease.subnet.subnets(new_prefix=size)
            if not any(block.overlaps(other) for other in taken)
        ]
        if free:
            return min(free, key=lambda block: (_freed_at(state, block), block))
    there = {p: f"on {used[p] or 'this host'}" for p in foreign if p.overlaps(lease.subnet)}
    held = ", ".join(f"{block} ({what})" for block, what in sorted({**blocks, **there}.items()))
    wanted = f"/{prefix}" if prefix is not None else f"/{default} or smaller"
    cure = _cure([used[p] for p in there])
    if blocks or not cure:
        cure += "; remove a network, or give hosts larger leases (SubnetLen)"
    raise Exhausted(
        f"the lease {lease.subnet} has no free block of {wanted}; it is held by {held}{cure}"
    )


def default_prefix(lease: IPv4Network) -> int:
    """Return the prefix length of a block without a wanted size: at most an eighth of the lease."""
    last = max(SMALLEST_DEFAULT, lease.prefixlen)
    return min(max(LARGEST_DEFAULT, lease.prefixlen + 3), last)


def _freed_at(state: State, block: IPv4Network) -> float:
    return max((f.at for f in state.freed.values() if f.cidr.overlaps(block)), default=0.0)


def _blocks(state: State) -> dict[IPv4Network, str]:
    """Return who holds each block, networks' too: Docker releases their pools before them."""
    others = {pool.cidr: "a network of another driver" for pool in state.pools.values()}
    ours = {n.gateway.network: f"network {short(n.id)}" for n in state.networks.values()}
    return {**others, **ours}


def check_held(lease: Lease) -> None:
    """Refuse to use a lease that another host may have. Errors: NoLease."""
    if not lease.held:
        raise NoLease(f"the lease of {lease.subnet} is lost, and another host may use it")
