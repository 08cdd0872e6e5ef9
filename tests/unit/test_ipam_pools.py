"""Which block a network gets."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network
from typing import Any

import pytest

from driver.errors import BadRequest, Conflict, Exhausted, FlannelError, Unavailable
from driver.ipam import BURST, BURST_S, PoolRequest, check_inside, take_pool, unclaimed_pools
from driver.model.records import Freed, Network, Pool, Record, State
from tests.unit.fakes import seeded
from tests.unit.sample import NET, NOW, blocks, hold, lease, network, pool, state_of


def take(state: State, cidr: str = "", prefix: int | None = None, onlink: str = "") -> Pool:
    want = PoolRequest(IPv4Network(cidr) if cidr else None, None, prefix)
    used = dict.fromkeys(blocks(*onlink.split()), "")
    return take_pool(state, want, used, "beef", NOW)


def used(cidr: str) -> Pool:
    """A pool long enough in use to be no part of a burst."""
    return pool(cidr, since=NOW - 100)


@pytest.mark.parametrize(
    ("subnet", "size"),
    [
        ("10.0.0.0/16", 26),
        ("10.2.0.0/20", 26),
        ("10.2.0.0/22", 26),
        ("10.2.0.0/23", 26),
        ("10.2.0.0/24", 27),
        ("10.2.0.0/25", 28),
        ("10.2.0.0/26", 29),
        ("10.2.0.0/27", 29),
        ("10.2.0.0/28", 29),
        ("10.2.0.0/29", 29),
        ("10.2.0.0/30", 30),
    ],
)
def test_a_block_is_an_eighth_of_the_lease_between_26_and_29(subnet: str, size: int) -> None:
    got = take(state_of(lease(subnet, "10.0.0.0/8")))
    assert got.cidr == IPv4Network(f"{subnet.partition('/')[0]}/{size}")
    assert (got.automatic, got.cursor, got.since) == (True, None, NOW)
    assert got.id == f"{got.cidr}/beef"


def test_without_a_lease_there_is_no_block() -> None:
    with pytest.raises(Unavailable, match="this host has no flannel lease yet"):
        take(State())


def test_blocks_are_halved_down_to_29_when_the_lease_runs_low() -> None:
    state, sizes = state_of(lease("10.2.0.0/26"), used("10.2.0.32/27")), []
    for _ in range(4):
        got = take(state)
        sizes.append(str(got.cidr))
        state = state_of(lease("10.2.0.0/26"), *state.pools.values(), used(str(got.cidr)))
    assert sizes == ["10.2.0.0/29", "10.2.0.8/29", "10.2.0.16/29", "10.2.0.24/29"]
    state = state_of(lease("10.2.0.0/24"), *map(used, ("10.2.0.0/25", "10.2.0.128/26")))
    state = state_of(lease("10.2.0.0/24"), *state.pools.values(), used("10.2.0.208/28"))
    assert str(take(state).cidr) == "10.2.0.224/27"
    state = state_of(lease("10.2.0.0/24"), *state.pools.values(), used("10.2.0.240/29"))
    assert str(take(state).cidr) == "10.2.0.192/28"
    state = state_of(lease("10.2.0.0/24"), *state.pools.values(), used("10.2.0.192/28"))
    assert str(take(state).cidr) == "10.2.0.224/28"
    state = state_of(lease("10.2.0.0/24"), *state.pools.values(), used("10.2.0.224/28"))
    assert str(take(state).cidr) == "10.2.0.248/29"


@pytest.mark.parametrize(
    ("prefix", "cidr"), [(24, "10.2.0.0/24"), (25, "10.2.0.0/25"), (30, "10.2.0.0/30")]
)
def test_flannel_size_decides(prefix: int, cidr: str) -> None:
    assert str(take(state_of(lease("10.2.0.0/24")), prefix=prefix).cidr) == cidr


@pytest.mark.parametrize("prefix", [0, 23, 31, 32, 99])
def test_flannel_size_outside_the_lease_is_refused(prefix: int) -> None:
    with pytest.raises(BadRequest, match=rf"flannel.size /{prefix} is not between /24 and /30"):
        take(state_of(lease("10.2.0.0/24")), prefix=prefix)


def test_flannel_size_is_never_halved() -> None:
    state = state_of(lease("10.2.0.0/24"), used("10.2.0.0/30"), used("10.2.0.128/30"))
    with pytest.raises(Exhausted, match=r"no free block of /25;"):
        take(state, prefix=25)


def test_freed_blocks_come_last_and_the_oldest_of_them_first() -> None:
    freed = [
        Freed(IPv4Network(cidr), at)
        for cidr, at in (("10.2.0.0/27", NOW - 1), ("10.2.0.32/27", NOW - 9), ("10.2.0.64/27", NOW))
    ]
    taken = [used(f"10.2.0.{start}/27") for start in range(128, 256, 32)]
    state = state_of(lease("10.2.0.0/24"), *freed, *taken)
    order = []
    for _ in range(4):
        got = take(state)
        order.append(str(got.cidr))
        state = state_of(state.lease, *freed, *state.pools.values(), used(str(got.cidr)))  # type: ignore[arg-type]
    assert order == ["10.2.0.96/27", "10.2.0.32/27", "10.2.0.0/27", "10.2.0.64/27"]


def test_a_block_counts_as_freed_as_late_as_any_part_of_it() -> None:
    parts = [Freed(IPv4Network("10.2.0.8/29"), NOW), Freed(IPv4Network("10.2.0.32/27"), NOW - 5)]
    state = state_of(lease("10.2.0.0/26"), *parts)
    assert str(take(state, prefix=27).cidr) == "10.2.0.32/27"


def test_what_the_host_already_uses_is_left_out() -> None:
    got = take(state_of(lease("10.2.0.0/24")), onlink="10.2.0.0/28 192.168.0.0/16 10.2.0.40/32")
    assert str(got.cidr) == "10.2.0.64/27"


@pytest.mark.parametrize(
    ("cidr", "error", "words"),
    [
        ("10.3.0.0/26", BadRequest, "is not inside this host's flannel lease 10.2.0.0/24"),
        ("10.2.0.0/23", BadRequest, "is not inside this host's flannel lease"),
        ("0.0.0.0/0", BadRequest, "is not inside"),
        ("10.2.0.4/31", BadRequest, "is too small for a network; /30 is the smallest"),
        ("10.2.0.4/32", BadRequest, "is too small"),
        ("10.2.0.64/26", Conflict, "overlaps 10.2.0.64/27 of network aaaaaaaaaaaa"),
        ("10.2.0.72/29", Conflict, "overlaps 10.2.0.64/27 of network aaaaaaaaaaaa"),
        ("10.2.0.128/27", Conflict, "overlaps 10.2.0.128/27 of a network of another driver"),
        ("10.2.0.192/26", Conflict, "overlaps 10.2.0.200/29, which this host already uses"),
    ],
)
def test_a_certain_block_is_checked(cidr: str, error: type[FlannelError], words: str) -> None:
    ours = used("10.2.0.64/27")
    state = state_of(lease("10.2.0.0/24"), ours, used("10.2.0.128/27"), user_of(ours))
    with pytest.raises(error, match=f"^subnet {cidr} ") as caught:
        take(state, cidr, onlink="10.2.0.200/29")
    assert words in str(caught.value)


def test_a_certain_block_is_given_as_asked_for() -> None:
    want = PoolRequest(IPv4Network("10.2.0.32/27"), IPv4Network("10.2.0.40/29"))
    got = take_pool(state_of(lease("10.2.0.0/24")), want, {}, "beef", NOW)
    assert (str(got.cidr), str(got.sub), got.automatic) == ("10.2.0.32/27", "10.2.0.40/29", False)
    assert str(take(state_of(lease("10.2.0.0/24")), "10.2.0.0/24").cidr) == "10.2.0.0/24"


def test_ip_range_outside_the_subnet_is_refused() -> None:
    want = PoolRequest(IPv4Network("10.2.0.32/27"), IPv4Network("10.2.0.64/29"))
    with pytest.raises(BadRequest, match=r"--ip-range 10.2.0.64/29 is not inside --subnet"):
        take_pool(state_of(lease("10.2.0.0/24")), want, {}, "beef", NOW)


def burst(count: int, age_s: float = 0.0, **changes: Any) -> list[Pool]:
    fields = {"automatic": True, "since": NOW - age_s, **changes}
    return [pool(f"10.2.0.{8 * i}/29", **fields) for i in range(count)]


def test_a_burst_of_automatic_requests_is_stopped() -> None:
    with pytest.raises(Conflict, match=rf"{BURST} blocks were asked for and not used within 2 s"):
        take(state_of(lease("10.2.0.0/24"), *burst(BURST)))
    assert take(state_of(lease("10.2.0.0/24"), *burst(BURST - 1)))


def test_only_new_automatic_unclaimed_blocks_make_a_burst() -> None:
    full: list[Record] = [lease("10.2.0.0/24"), *burst(BURST)]
    claim = hold("10.2.0.1", "gateway", of="10.2.0.0/29/beef")
    assert take(state_of(lease("10.2.0.0/24"), *burst(BURST, age_s=BURST_S)))
    assert take(state_of(lease("10.2.0.0/24"), *burst(BURST, automatic=False)))
    assert take(state_of(*full, claim))
    assert take(state_of(*full), "10.2.0.64/27")


def test_a_pool_is_claimed_by_an_address_or_a_network() -> None:
    held, joined, bare = (pool(f"10.2.0.{8 * i}/29") for i in range(3))
    state = state_of(held, joined, bare, hold("10.2.0.1", of=held.id), network(NET, pool=joined.id))
    assert unclaimed_pools(state) == [bare]


def user_of(pool: Pool) -> Network:
    return network(NET, pool=pool.id, gateway=IPv4Interface((pool.cidr[1], pool.cidr.prefixlen)))


def test_exhaustion_names_who_holds_the_lease_and_ends_when_one_goes() -> None:
    ours, theirs = used("10.2.0.0/25"), used("10.2.0.128/25")
    full = state_of(lease("10.2.0.0/24"), ours, theirs, user_of(ours))
    with pytest.raises(Exhausted) as caught:
        take(full)
    assert str(caught.value) == (
        "the lease 10.2.0.0/24 has no free block of /27 or smaller; it is held by "
        "10.2.0.0/25 (network aaaaaaaaaaaa), 10.2.0.128/25 (a network of another driver); "
        "remove a network, or give hosts larger leases (SubnetLen)"
    )
    with pytest.raises(Exhausted, match=r"held by 10.2.0.0/16 \(on this host\); remove a network"):
        take(state_of(lease("10.2.0.0/24")), onlink="10.2.0.0/16")
    assert str(take(state_of(lease("10.2.0.0/24"), theirs)).cidr) == "10.2.0.0/27"


def test_what_docker0_holds_is_named_with_its_setting_and_the_next_command() -> None:
    ours, whole = used("10.2.0.0/25"), PoolRequest(IPv4Network("10.2.0.0/24"))
    bip = {IPv4Network("10.2.0.0/24"): "docker0", IPv4Network("192.168.1.0/24"): "eth0"}
    full = state_of(lease("10.2.0.0/24"))
    cure = (
        "; docker0 has its prefix from --bip on dockerd's command line or from bip in daemon.json: "
        "`docker-flannel migrate` shows how to move it"
    )
    with pytest.raises(Exhausted) as caught:
        take_pool(full, PoolRequest(), bip, "x", NOW)
    held = "the lease 10.2.0.0/24 has no free block of /27 or smaller; it is held by "
    assert str(caught.value) == f"{held}10.2.0.0/24 (on docker0){cure}"
    with pytest.raises(Conflict) as caught_too:
        take_pool(full, whole, bip, "x", NOW)
    told = "subnet 10.2.0.0/24 overlaps 10.2.0.0/24 on docker0, which this host already uses"
    assert str(caught_too.value) == told + cure
    half = {IPv4Network("10.2.0.128/25"): "docker0"}
    with pytest.raises(Exhausted, match="shows how to move it; remove a network, or give hosts"):
        take_pool(
            state_of(lease("10.2.0.0/24"), ours, user_of(ours)), PoolRequest(), half, "x", NOW
        )


def test_a_block_outside_the_lease_is_told_from_one_inside() -> None:
    check_inside(lease("10.2.0.0/24"), IPv4Network("10.2.0.0/24"))
    with pytest.raises(BadRequest, match="choose a part of the lease, or leave --subnet out"):
        check_inside(lease("10.2.0.0/24"), IPv4Network("10.2.1.0/26"))


@pytest.mark.parametrize("seed", range(4))
def test_blocks_never_overlap_and_stay_inside_whatever_is_taken_and_freed(seed: int) -> None:
    rng, own, now = seeded(seed), lease("10.2.0.0/24"), NOW
    onlink = dict.fromkeys(blocks("10.2.0.48/29"), "")
    held: dict[str, Pool] = {}
    freed: dict[str, Freed] = {}
    given = 0
    for turn in range(150):
        now += 3
        state = State(own, pools=held, freed=freed)
        if held and rng.random() < 0.4:
            gone = held.pop(rng.choice(list(held)))
            freed[str(gone.cidr)] = Freed(gone.cidr, now)
            continue
        want = PoolRequest(prefix=rng.choice([None, None, 26, 28, 30]))
        try:
            got = take_pool(state, want, onlink, f"{turn:08x}", now)
        except Exhausted:
            continue
        given += 1
        assert got.cidr.subnet_of(own.subnet)
        assert not any(got.cidr.overlaps(other.cidr) for other in held.values())
        assert not any(got.cidr.overlaps(other) for other in onlink)
        held[got.id] = got
    assert given > 20
    assert take_pool(State(own, freed=freed), PoolRequest(), onlink, "x", now)
