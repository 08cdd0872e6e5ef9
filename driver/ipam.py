"""Which block of the lease a network gets, and which address an endpoint. Pure choices.

A block is a network's own piece of the lease, with its true mask. Imports `model` and `errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from driver.errors import BadRequest, Conflict, Exhausted, Unavailable
from driver.model import Hold, Lease, Pool, State, hold_id, replace, short

LARGEST_DEFAULT = 26  # prefix lengths: of a block that nobody sized,
SMALLEST_DEFAULT = 29  # of one when the lease runs low,
SMALLEST = 30  # of one that was asked for
BURST_S = 2.0
BURST = 8
UNCLAIMED_S = 60.0


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """What Docker asks for: a certain block, or any (`cidr` None) of a size (`prefix` or None)."""

    cidr: IPv4Network | None = None
    sub: IPv4Network | None = None
    prefix: int | None = None


def take_pool(
    state: State, want: PoolRequest, onlink: Iterable[IPv4Network], serial: str, now: float
) -> Pool:
    """Choose the block for a new network.

    `onlink` are prefixes the host reaches or owns without us; `serial` makes the pool's id unique.
    Errors: Unavailable without a lease; BadRequest, Conflict, Exhausted.
    """
    lease = state.lease
    if lease is None:
        raise Unavailable(
            "this host has no flannel lease yet; `docker-flannel status` says what it waits for"
        )
    _check_held(lease)
    if want.cidr is None:
        _check_burst(state, now)
        cidr = _free_block(state, lease, want.prefix, tuple(onlink))
    else:
        cidr = want.cidr
        _check_block(state, lease, cidr, onlink)
        if want.sub is not None and not want.sub.subnet_of(cidr):
            raise BadRequest(f"--ip-range {want.sub} is not inside --subnet {cidr}")
    return Pool(f"{cidr}/{serial}", cidr, want.sub, None, now, automatic=want.cidr is None)


def check_inside(lease: Lease, cidr: IPv4Network) -> None:
    """Refuse a block that is not this host's."""
    if not cidr.subnet_of(lease.subnet):
        raise BadRequest(
            f"subnet {cidr} is not inside this host's flannel lease {lease.subnet}; choose a part "
            "of the lease, or leave --subnet out to be given one"
        )


def _check_block(
    state: State, lease: Lease, cidr: IPv4Network, onlink: Iterable[IPv4Network]
) -> None:
    check_inside(lease, cidr)
    if cidr.prefixlen > SMALLEST:
        raise BadRequest(f"subnet {cidr} is too small for a network; /{SMALLEST} is the smallest")
    for block, holder in _blocks(state).items():
        if block.overlaps(cidr):
            raise Conflict(f"subnet {cidr} overlaps {block} of {holder}")
    for prefix in _foreign(lease, onlink):
        if prefix.overlaps(cidr):
            raise Conflict(f"subnet {cidr} overlaps {prefix}, which this host already uses")


def _foreign(lease: Lease, onlink: Iterable[IPv4Network]) -> list[IPv4Network]:
    """Leave out the lease's first address: flannel's device has it, and no container gets it."""
    return [p for p in onlink if p != IPv4Network(lease.subnet.network_address)]


def _check_burst(state: State, now: float) -> None:
    """Stop dockerd's endless loop.

    When a pool overlaps a route or name server of the host, dockerd asks again at once, keeping
    what it got, without any limit (libnetwork, RequestPool). A pool it means to use gets a gateway
    before the next one is asked for.
    """
    unclaimed = [p for p in unclaimed_pools(state) if p.automatic and now - p.since < BURST_S]
    if len(unclaimed) >= BURST:
        raise Conflict(
            f"{len(unclaimed)} blocks were asked for and not used within {BURST_S:.0f} s, the last "
            f"{unclaimed[-1].cidr}; they overlap routes or name servers of this host: name a free "
            "one with --subnet"
        )


def unclaimed_pools(state: State) -> list[Pool]:
    """List the pools without network and without address: asked for, and then not used."""
    held = {hold.pool for hold in state.holds.values()}
    used = {network.pool for network in state.networks.values()}
    return [p for p in state.pools.values() if p.id not in held and p.id not in used]


def _free_block(
    state: State, lease: Lease, prefix: int | None, onlink: tuple[IPv4Network, ...]
) -> IPv4Network:
    """Choose a free block: one of the wanted size, or an eighth of the lease and then smaller.

    Blocks that were given back come last, the longest unused of them first.
    """
    shortest = lease.subnet.prefixlen
    if prefix is not None and not shortest <= prefix <= SMALLEST:
        raise BadRequest(f"flannel.size /{prefix} is not between /{shortest} and /{SMALLEST}")
    last, default = max(SMALLEST_DEFAULT, shortest), default_prefix(lease.subnet)
    blocks = _blocks(state)
    taken = [*_foreign(lease, onlink), *blocks]
    for size in [prefix] if prefix is not None else range(default, last + 1):
        free = [
            block
            for block in lease.subnet.subnets(new_prefix=size)
            if not any(block.overlaps(other) for other in taken)
        ]
        if free:
            return min(free, key=lambda block: (_freed_at(state, block), block))
    held = ", ".join(f"{block} ({blocks[block]})" for block in sorted(blocks))
    wanted = f"/{prefix}" if prefix is not None else f"/{default} or smaller"
    raise Exhausted(
        f"the lease {lease.subnet} has no free block of {wanted}; it is held by "
        f"{held or 'the host'}; remove a network, or give hosts larger leases (SubnetLen)"
    )


def default_prefix(lease: IPv4Network) -> int:
    """Give the prefix length of a block that nobody sized: an eighth of the lease at most."""
    last = max(SMALLEST_DEFAULT, lease.prefixlen)
    return min(max(LARGEST_DEFAULT, lease.prefixlen + 3), last)


def _freed_at(state: State, block: IPv4Network) -> float:
    return max((f.at for f in state.freed.values() if f.cidr.overlaps(block)), default=0.0)


def _blocks(state: State) -> dict[IPv4Network, str]:
    """Say who holds each block: Docker gives a pool back before it deletes the network."""
    others = {pool.cidr: "a network of another driver" for pool in state.pools.values()}
    ours = {n.gateway.network: f"network {short(n.id)}" for n in state.networks.values()}
    return {**others, **ours}


def take_address(
    state: State,
    pool: Pool,
    want: IPv4Address | None,
    why: Literal["gateway", "endpoint"],
    now: float,
) -> tuple[Pool, Hold]:
    """Choose an address: the wanted one, the first for a gateway, else the next free one.

    Gives the pool with its cursor moved, and the hold. A gateway that is asked for again is the
    same gateway; so is a wanted address that has been held without an endpoint for a minute,
    which a call that broke off left behind.
    Errors: BadRequest, Conflict, Exhausted; Unavailable when the lease has moved away.
    """
    if state.lease is None or not pool.cidr.subnet_of(state.lease.subnet):
        raise Unavailable(
            f"block {pool.cidr} is not inside this host's flannel lease "
            f"{state.lease.subnet if state.lease else '(none)'}; the lease has moved: make the "
            "network anew"
        )
    _check_held(state.lease)
    holds = {hold.ip: hold for hold in state.holds.values() if hold.pool == pool.id}
    if want is None and why == "gateway":
        held = next((ip for ip, hold in holds.items() if hold.why == "gateway"), None)
        want = held or next((ip for ip in pool.cidr.hosts() if ip not in holds), None)
    if want is not None:
        _check_address(state, pool, want, why, now)
        return pool, Hold(pool.id, want, why, now)
    ip = _next_free(pool, holds)
    return replace(pool, cursor=ip), Hold(pool.id, ip, why, now)


def _check_held(lease: Lease) -> None:
    if not lease.held:
        raise Unavailable(
            f"the lease of {lease.subnet} is lost, and another host may use it; "
            "`docker-flannel status` says why"
        )


def _check_address(
    state: State, pool: Pool, ip: IPv4Address, why: Literal["gateway", "endpoint"], now: float
) -> None:
    if ip not in pool.cidr:
        raise BadRequest(f"address {ip} is not inside the network's subnet {pool.cidr}")
    if ip == pool.cidr.network_address:
        raise BadRequest(f"address {ip} is the network address of {pool.cidr}; choose another")
    if ip == pool.cidr.broadcast_address:
        raise BadRequest(f"address {ip} is the broadcast address of {pool.cidr}; choose another")
    hold = state.holds.get(hold_id(pool.id, ip))
    if hold is None or hold.why == why == "gateway":
        return
    if hold.why == "gateway":
        raise Conflict(f"address {ip} is the gateway of {pool.cidr}; choose another")
    if hold in orphans(state, now):
        return
    raise Conflict(f"address {ip} is already in use in {pool.cidr}")


def _next_free(pool: Pool, holds: Iterable[IPv4Address]) -> IPv4Address:
    """Walk on from the last address given, so that a freed one is the last to come again."""
    span = pool.sub or pool.cidr
    taken = set(map(int, holds))
    taken |= {int(pool.cidr.network_address), int(pool.cidr.broadcast_address)}
    start = pool.cursor if pool.cursor is not None and pool.cursor in span else None
    for ip in _from(span, start):
        if ip not in taken:
            return IPv4Address(ip)
    raise Exhausted(
        f"no free address in {span}: all {span.num_addresses} are taken or reserved; remove a "
        "container, or make the network with a larger block (--ipam-opt flannel.size)"
    )


def _from(span: IPv4Network, after: IPv4Address | None) -> Iterator[int]:
    first, last = int(span.network_address), int(span.broadcast_address)
    middle = first if after is None else int(after) + 1
    yield from range(middle, last + 1)
    yield from range(first, middle)


def orphans(state: State, now: float, age_s: float = UNCLAIMED_S) -> list[Hold]:
    """List the endpoint addresses of our networks that no endpoint has had for some time.

    Units: `age_s` seconds. Only pools of our own networks count: with another driver's network
    the endpoints are not ours to see.
    """
    networks = {network.pool: network.id for network in state.networks.values()}
    used = {(e.network, e.ip.ip) for e in state.endpoints.values()}
    return [
        hold
        for hold in state.holds.values()
        if hold.why == "endpoint"
        and now - hold.since > age_s
        and hold.pool in networks
        and (networks[hold.pool], hold.ip) not in used
    ]
