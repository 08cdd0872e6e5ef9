"""Which address of a pool a gateway or a container gets."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from driver.core.addresses import UNCLAIMED_S, Wish, orphans, take_address
from driver.errors import BadRequest, Conflict, Exhausted, FlannelError, Unavailable
from driver.model.records import Hold, Pool, State, replace
from tests.unit.fakes import seeded
from tests.unit.sample import (
    NOW,
    POOL,
    endpoint,
    hold,
    lease,
    network,
    pool,
    state_of,
)

SMALL = pool("10.2.3.0/29")
RANGED = pool("10.2.3.0/27", sub=IPv4Network("10.2.3.8/29"))


def having(of: Pool, *others: Any) -> State:
    return state_of(lease("10.2.3.0/24"), of, *others)


def take(state: State, of: Pool, ip: str = "", why: Any = "endpoint") -> tuple[Pool, Hold]:
    wish = Wish(IPv4Address(ip) if ip else None, gateway=why == "gateway")
    taken = take_address(state, of, wish, NOW)
    return taken.pool, taken.hold


def taken(of: Pool, count: int, *others: Hold) -> list[str]:
    """Take addresses one after the other, keeping all."""
    state, got = having(of, *others), []
    for _ in range(count):
        of, made = take(state, of)
        state = having(of, *state.holds.values(), made)
        got.append(str(made.ip))
    return got


def test_the_gateway_is_the_first_host_address_and_moves_no_cursor() -> None:
    got, made = take(having(SMALL), SMALL, why="gateway")
    assert (str(made.ip), made.why, made.pool, made.since) == (
        "10.2.3.1",
        "gateway",
        SMALL.id,
        NOW,
    )
    assert got == SMALL


def test_the_gateway_is_outside_of_the_range_for_containers() -> None:
    assert str(take(having(RANGED), RANGED, why="gateway")[1].ip) == "10.2.3.1"


def test_a_gateway_asked_for_again_is_the_same() -> None:
    first = hold("10.2.3.4", "gateway", of=SMALL.id)
    for ip in ("", "10.2.3.4"):
        assert str(take(having(SMALL, first), SMALL, ip, "gateway")[1].ip) == "10.2.3.4"


def test_the_gateway_passes_over_an_address_that_is_taken() -> None:
    assert str(take(having(SMALL, hold("10.2.3.1", of=SMALL.id)), SMALL, why="gateway")[1].ip) == (
        "10.2.3.2"
    )


def test_addresses_come_in_order_and_then_run_out() -> None:
    gateway = hold("10.2.3.1", "gateway", of=SMALL.id)
    assert taken(SMALL, 5, gateway) == [f"10.2.3.{i}" for i in range(2, 7)]
    with pytest.raises(Exhausted) as caught:
        taken(SMALL, 6, gateway)
    assert str(caught.value) == (
        "no free address in 10.2.3.0/29: all 8 are taken or reserved; remove a container, or make "
        "the network with a larger block (--ipam-opt flannel.size)"
    )


def test_of_addresses_of_which_nothing_is_known_a_freed_one_is_not_given_again_at_once() -> None:
    state, of, got = having(SMALL), SMALL, []
    for _ in range(8):
        of, made = take(state, of)
        state = having(of)  # given back at once
        got.append(made.ip.packed[-1])
    assert got == [1, 2, 3, 4, 5, 6, 1, 2]


def test_a_full_pool_gives_the_one_that_was_given_back() -> None:
    for free in range(1, 7):
        for cursor in (None, *range(1, 7)):
            at = IPv4Address(f"10.2.3.{cursor}") if cursor else None
            of = replace(SMALL, cursor=at)
            others = [hold(f"10.2.3.{i}", of=SMALL.id) for i in range(1, 7) if i != free]
            got, made = take(having(of, *others), of)
            assert str(made.ip) == str(got.cursor) == f"10.2.3.{free}"


def test_ip_range_limits_what_comes_by_itself() -> None:
    assert taken(RANGED, 8) == [f"10.2.3.{i}" for i in range(8, 16)]
    with pytest.raises(Exhausted, match=r"no free address in 10.2.3.8/29: all 8"):
        taken(RANGED, 9)
    assert str(take(having(RANGED), RANGED, "10.2.3.20")[1].ip) == "10.2.3.20"


def test_ip_range_may_hold_the_reserved_ones_which_are_passed_over() -> None:
    for cidr, first in (("10.2.3.0/30", 1), ("10.2.3.28/30", 28)):
        of = pool("10.2.3.0/27", sub=IPv4Network(cidr))
        assert taken(of, 3) == [f"10.2.3.{first + i}" for i in range(3)]
        with pytest.raises(Exhausted):
            taken(of, 4)


def test_a_cursor_that_lies_outside_the_range_starts_at_its_beginning() -> None:
    of = replace(RANGED, cursor=IPv4Address("10.2.3.30"))
    assert str(take(having(of), of)[1].ip) == "10.2.3.8"


def test_an_address_that_was_asked_for_moves_no_cursor() -> None:
    of = replace(SMALL, cursor=IPv4Address("10.2.3.2"))
    assert take(having(of), of, "10.2.3.5")[0] == of


@pytest.mark.parametrize(
    ("ip", "why", "error", "words"),
    [
        ("10.2.4.1", "endpoint", BadRequest, "is not inside the network's subnet 10.2.3.0/27"),
        ("10.2.3.0", "endpoint", BadRequest, "is the network address of 10.2.3.0/27"),
        ("10.2.3.0", "gateway", BadRequest, "is the network address of 10.2.3.0/27"),
        ("10.2.3.31", "endpoint", BadRequest, "is the broadcast address of 10.2.3.0/27"),
        ("10.2.3.31", "gateway", BadRequest, "is the broadcast address"),
        ("10.2.3.1", "endpoint", Conflict, "is the gateway of 10.2.3.0/27"),
        ("10.2.3.2", "endpoint", Conflict, "is already in use in 10.2.3.0/27; choose another"),
        ("10.2.3.2", "gateway", Conflict, "is already in use in 10.2.3.0/27"),
        ("10.2.3.9", "endpoint", Conflict, "is already in use in 10.2.3.0/27"),
    ],
)
def test_an_address_that_cannot_be_given(
    ip: str, why: str, error: type[FlannelError], words: str
) -> None:
    held = [hold("10.2.3.1", "gateway"), hold("10.2.3.2"), hold("10.2.3.9", "aux", since=0.0)]
    with pytest.raises(error, match=f"^address {ip} ") as caught:
        take(having(POOL, *held), POOL, ip, why)
    assert words in str(caught.value)


def test_an_address_that_is_in_use_is_refused_with_its_user() -> None:
    held = [hold("10.2.3.2"), endpoint(ip="10.2.3.2/27")]
    with pytest.raises(Conflict, match=r"/27 by endpoint cccccccccccc; choose another$"):
        take(having(POOL, *held), POOL, "10.2.3.2")


@pytest.mark.parametrize(
    ("age_s", "others", "given"),
    [
        (UNCLAIMED_S + 1, [network()], True),
        (UNCLAIMED_S, [network()], False),
        (UNCLAIMED_S + 1, [], False),
        (UNCLAIMED_S + 1, [network(), endpoint()], False),
        (UNCLAIMED_S + 1, [network(), endpoint(network="f" * 64)], True),
    ],
)
def test_an_address_without_an_endpoint_for_a_minute_is_given_again(
    age_s: float, others: list[Any], *, given: bool
) -> None:
    old = hold("10.2.3.2", since=NOW - age_s)
    state = having(POOL, old, *others)
    assert orphans(state, NOW) == ([old] if given else [])
    if given:
        assert take(state, POOL, "10.2.3.2")[1] == replace(old, since=NOW)
        return
    with pytest.raises(Conflict, match="already in use"):
        take(state, POOL, "10.2.3.2")


@pytest.mark.parametrize("why", ["gateway", "aux"])
def test_only_addresses_of_endpoints_can_be_orphans(why: str) -> None:
    assert not orphans(having(POOL, network(), hold("10.2.3.2", why, since=0.0)), NOW)


def test_a_lease_that_moved_gives_no_address() -> None:
    state = state_of(lease("10.2.9.0/24"), POOL)
    with pytest.raises(Unavailable) as caught:
        take(state, POOL)
    assert str(caught.value) == (
        "block 10.2.3.0/27 is not inside this host's flannel lease 10.2.9.0/24; the lease has "
        "moved: make the network anew"
    )
    with pytest.raises(Unavailable, match=r"lease \(none\)"):
        take(state_of(POOL), POOL)


@pytest.mark.parametrize("seed", range(8))
def test_no_address_is_given_twice_and_all_come_back(seed: int) -> None:
    rng = seeded(seed)
    of = pool(rng.choice(["10.2.3.0/27", "10.2.3.64/28", "10.2.3.8/30"]))
    state = having(of)
    for _ in range(300):
        if state.holds and rng.random() < 0.45:
            gone = rng.choice(list(state.holds.values()))
            state = having(of, *(h for h in state.holds.values() if h != gone))
            continue
        free, before = of.cidr.num_addresses - 2 - len(state.holds), of.cursor
        try:
            of, made = take(state, of)
        except Exhausted:
            assert free == 0
            continue
        assert made.id not in state.holds
        assert made.ip in list(of.cidr.hosts())
        assert made.ip != before or free == 1
        state = having(of, *state.holds.values(), made)
    assert len(taken(of, of.cidr.num_addresses - 2)) == of.cidr.num_addresses - 2
