"""Choose the address of a gateway or a container from a pool. Pure.

A restarted container gets its old address, unless another one needed it meanwhile. An address that
was requested with `--ip` goes to other containers only when no other is left.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import chain

from driver.errors import BadRequest, Conflict, Exhausted, Unavailable
from driver.ipam import check_held
from driver.model.records import Claim, Hold, Pool, State, hold_id, replace, short

UNCLAIMED_S = 60.0
TOGETHER_S = 0.15  # `docker stop a b` frees both within some 0.05 s, two commands within 0.25 s


@dataclass(frozen=True, slots=True)
class Wish:
    """A request for a certain address or any (`ip` None), for the gateway or a container.

    `owner`: what identifies a container when it is started again: its name, its MAC or the address
    that Docker gave it; "" if Docker reveals none of them.
    """

    ip: IPv4Address | None = None
    owner: str = ""
    gateway: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """The chosen address as records; the pool's cursor is moved."""

    pool: Pool
    hold: Hold
    claim: Claim | None = None


def take_address(
    state: State, pool: Pool, wish: Wish, now: float, left: Container[str] = ()
) -> Taken:
    """Choose an address: the wanted one, the first one for a gateway, else see `_any_address`.

    `left`: ids of holds whose calls broke off: these addresses may be given again. So may a wanted
    address that no endpoint has used for a minute. A gateway that is requested again is the same.
    Errors: BadRequest, Conflict, Exhausted; Unavailable when the lease has moved away.
    """
    if state.lease is None or not pool.cidr.subnet_of(state.lease.subnet):
        raise Unavailable(
            f"block {pool.cidr} is not inside this host's flannel lease "
            f"{state.lease.subnet if state.lease else '(none)'}; the lease has moved: make the "
            "network anew"
        )
    check_held(state.lease)
    holds = {hold.ip: hold for hold in state.holds.values() if hold.pool == pool.id}
    if wish.gateway:
        held = next((ip for ip, hold in holds.items() if hold.why == "gateway"), None)
        first = next((ip for ip in pool.cidr.hosts() if ip not in holds), None)
        ip = wish.ip or held or first
        if ip is None:
            raise _exhausted(pool)
        _check_address(state, pool, replace(wish, ip=ip), now, left)
        return Taken(pool, Hold(pool.id, ip, "gateway", now))
    if wish.ip is not None:
        _check_address(state, pool, wish, now, left)
        claim = Claim(pool.id, wish.ip, now, wish.owner, named=True)
        return Taken(pool, Hold(pool.id, wish.ip, "endpoint", now), claim)
    ip = _any_address(state, pool, list(holds.values()), wish.owner, left)
    known = state.claims.get(hold_id(pool.id, ip))
    claim = known if known and known.named else Claim(pool.id, ip, now, wish.owner)
    return Taken(replace(pool, cursor=ip), Hold(pool.id, ip, "endpoint", now), claim)


def _check_address(state: State, pool: Pool, wish: Wish, now: float, left: Container[str]) -> None:
    ip = wish.ip
    if ip is None or ip not in pool.cidr:
        raise BadRequest(f"address {ip} is not inside the network's subnet {pool.cidr}")
    if ip == pool.cidr.network_address:
        raise BadRequest(f"address {ip} is the network address of {pool.cidr}; choose another")
    if ip == pool.cidr.broadcast_address:
        raise BadRequest(f"address {ip} is the broadcast address of {pool.cidr}; choose another")
    hold = state.holds.get(hold_id(pool.id, ip))
    if hold is None or (hold.why == "gateway" and wish.gateway):
        return
    if hold.why == "gateway":
        raise Conflict(f"address {ip} is the gateway of {pool.cidr}; choose another")
    if hold.id in left or hold in orphans(state, now):
        return
    users = (e for e in state.endpoints.values() if e.ip.ip == ip)
    by = next((f" by endpoint {short(user.id)}" for user in users), "")
    raise Conflict(f"address {ip} is already in use in {pool.cidr}{by}; choose another")


def _any_address(
    state: State, pool: Pool, holds: Collection[Hold], owner: str, left: Container[str]
) -> IPv4Address:
    """Choose an address for a container that requests none in particular.

    Its own comes first. An unidentified container gets the address that was released last, since
    most often it is the container that had it. Then come addresses never used, those released
    longest ago, those requested with `--ip`, and those of calls that broke off.
    """
    span = pool.sub or pool.cidr
    taken = {hold.ip for hold in holds}
    claims = [c for c in state.claims.values() if c.pool == pool.id and c.ip in span]
    own = [c for c in claims if owner and c.owner == owner and not c.named]
    own = [c for c in own if c.ip not in taken or c.id in left]
    if own:
        return max(own, key=lambda claim: claim.since).ip
    free = sorted((c for c in claims if c.ip not in taken), key=lambda claim: claim.freed)
    freed = [claim for claim in free if not claim.named]
    if freed and not owner:
        return _last(freed).ip
    known = {claim.ip for claim in free}
    fresh = (ip for ip in _walk(pool) if ip not in taken and ip not in known)
    broken = sorted((h for h in holds if h.id in left and h.ip in span), key=lambda h: h.since)
    named = [claim for claim in free if claim.named]
    rest = [*(claim.ip for claim in [*freed, *named]), *(hold.ip for hold in broken)]
    ip = next(chain(fresh, rest), None)
    if ip is None:
        raise _exhausted(pool)
    return ip


def _last(freed: Sequence[Claim]) -> Claim:
    """Return the address released last; of several released together, the one taken first.

    So x keeps its address in `docker restart x`, even right after `docker rm -f old`. So do a and b
    in `docker stop a b; docker start a b`: they are released at once, in any order, but usually
    started in the same order as before.
    """
    batch: list[Claim] = []
    for claim in reversed(freed):
        if batch and batch[-1].freed - claim.freed > TOGETHER_S:
            break
        batch.append(claim)
    return min(batch, key=lambda claim: claim.since)


def _walk(pool: Pool) -> Iterator[IPv4Address]:
    """Yield the addresses a container may have, from the one after the last given."""
    span, ends = pool.sub or pool.cidr, (pool.cidr.network_address, pool.cidr.broadcast_address)
    first, last = int(span.network_address), int(span.broadcast_address)
    after = int(pool.cursor) + 1 if pool.cursor is not None and pool.cursor in span else first
    for number in chain(range(after, last + 1), range(first, after)):
        if (ip := IPv4Address(number)) not in ends:
            yield ip


def _exhausted(pool: Pool) -> Exhausted:
    span = pool.sub or pool.cidr
    return Exhausted(
        f"no free address in {span}: all {span.num_addresses} are taken or reserved; remove a "
        "container, or make the network with a larger block (--ipam-opt flannel.size)"
    )


def orphans(state: State, now: float) -> list[Hold]:
    """List the endpoint addresses of our networks that no endpoint has used for a minute.

    Only pools of our own networks count: the endpoints of another driver's network are unknown.
    """
    networks = {network.pool: network.id for network in state.networks.values()}
    used = {(e.network, e.ip.ip) for e in state.endpoints.values()}
    return [
        hold
        for hold in state.holds.values()
        if hold.why == "endpoint"
        and now - hold.since > UNCLAIMED_S
        and hold.pool in networks
        and (networks[hold.pool], hold.ip) not in used
    ]
