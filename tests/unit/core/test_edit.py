"""One change of the state, with what hangs on it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from driver.core.edit import Edit
from driver.errors import UnknownObject
from driver.model.records import Endpoint, Freed, Network, Pool, Record, State, replace
from tests.unit.sample import (
    END,
    END2,
    LEASE,
    NET,
    NOW,
    OTHER,
    POOL,
    WEB,
    endpoint,
    hold,
    network,
    pool,
    state_of,
)

LATER = NOW + 5
DOCKERS = pool("10.2.3.32/27").owned("docker", OTHER)
FULL = (LEASE, POOL, network(), hold("10.2.3.1", "gateway"), hold("10.2.3.2"), endpoint())


def edit_of(*records: Record) -> Edit:
    return Edit(state_of(*records), LATER)


def check(edit: Edit, *left: Record) -> None:
    """The new state is `left`, and the rows lead from the old one to it."""
    wanted = state_of(*left)
    assert edit.state == wanted
    put, drop = edit.rows()
    before: State = edit._before
    rows = {(r.kind, r.id): r for r in records_of(before)}
    for record in drop:
        rows.pop((record.kind, record.id), None)
    rows |= {(r.kind, r.id): r for r in put}
    assert not {(r.kind, r.id) for r in put} & {(r.kind, r.id) for r in drop}
    assert state_of(*rows.values()) == wanted


def records_of(state: State) -> list[Record]:
    rows: list[Any] = [state.lease] if state.lease else []
    for found in (state.pools, state.freed, state.holds, state.networks, state.endpoints):
        rows += found.values()
    return rows


def test_put_adds_and_replaces_and_leaves_the_old_state_alone() -> None:
    old = state_of(LEASE, POOL)
    edit = Edit(old, LATER)
    moved = replace(POOL, cursor=IPv4Address("10.2.3.2"))
    edit.put(moved, network())
    check(edit, LEASE, moved, network())
    assert old == state_of(LEASE, POOL)
    edit.put(replace(LEASE, mtu=1400))
    assert edit.state.lease == replace(LEASE, mtu=1400)


def test_an_endpoint_takes_its_released_address_with_it_and_no_other() -> None:
    for released, left in ((True, []), (False, [hold("10.2.3.2")])):
        gone = hold("10.2.3.2", released=released)
        edit = edit_of(LEASE, POOL, network(), gone, hold("10.2.3.3", released=True), endpoint())
        edit.drop(endpoint())
        check(edit, LEASE, POOL, network(), hold("10.2.3.3", released=True), *left)


def test_a_pool_takes_its_addresses_with_it_and_is_remembered_as_freed() -> None:
    other = hold("10.2.3.33", of=DOCKERS.id)
    edit = edit_of(*FULL, DOCKERS, other)
    edit.drop(POOL)
    check(edit, LEASE, network(), endpoint(), DOCKERS, other, Freed(POOL.cidr, LATER))


def test_a_network_takes_its_endpoints_with_it_and_only_a_pool_of_docker() -> None:
    theirs = network(OTHER, pool=DOCKERS.id)
    second = endpoint(END2, "10.2.3.34/27", network=OTHER)
    edit = edit_of(*FULL, DOCKERS, theirs, second)
    edit.drop(network())
    check(edit, *FULL[:2], *FULL[3:5], DOCKERS, theirs, second)
    edit.drop(theirs)
    check(edit, *FULL[:2], *FULL[3:5], Freed(DOCKERS.cidr, LATER))


def test_a_network_whose_endpoint_was_released_takes_the_address_too() -> None:
    edit = edit_of(LEASE, POOL, network(), hold("10.2.3.2", released=True), endpoint())
    edit.drop(network())
    check(edit, LEASE, POOL)


def test_what_is_dropped_and_put_again_stays_and_the_other_way_round() -> None:
    edit = edit_of(LEASE, POOL)
    edit.drop(POOL)
    edit.take(POOL)
    check(edit, LEASE, POOL)
    fresh = pool("10.2.3.64/27")
    edit.put(fresh)
    edit.drop(fresh)
    check(edit, LEASE, POOL, Freed(fresh.cidr, LATER))
    edit.drop(LEASE)
    assert edit.state.lease is None


def test_dropping_what_is_gone_changes_nothing() -> None:
    edit = edit_of(LEASE, POOL, network())
    edit.drop(endpoint())
    edit.drop(hold("10.2.3.2"))
    check(edit, LEASE, POOL, network())


def test_taking_a_block_forgets_that_any_of_it_was_freed() -> None:
    parts = [Freed(IPv4Network(cidr), NOW) for cidr in ("10.2.3.0/28", "10.2.3.0/24")]
    apart = Freed(IPv4Network("10.2.3.32/27"), NOW)
    edit = edit_of(LEASE, *parts, apart)
    edit.take(POOL, hold("10.2.3.1", "gateway"))
    check(edit, LEASE, POOL, hold("10.2.3.1", "gateway"), apart)


@pytest.mark.parametrize(
    ("others", "left"),
    [
        ([], []),
        ([network()], [network()]),
        ([network(), endpoint()], [network()]),
        (
            [network(), endpoint(sandbox="/run/x")],
            [network(), endpoint(sandbox="/run/x"), hold("10.2.3.2", released=True)],
        ),
        ([network(), endpoint(ip="10.2.3.3/27")], [network(), endpoint(ip="10.2.3.3/27")]),
    ],
    ids=["no network", "no endpoint", "never joined", "joined", "another's"],
)
def test_release_frees_an_address_unless_a_container_lives_on_it(
    others: list[Record], left: list[Record]
) -> None:
    edit = edit_of(LEASE, POOL, hold("10.2.3.2"), *others)
    edit.release(POOL, IPv4Address("10.2.3.2"))
    check(edit, LEASE, POOL, *left)


def test_release_of_an_address_that_nobody_holds_changes_nothing() -> None:
    edit = edit_of(*FULL)
    edit.release(POOL, IPv4Address("10.2.3.9"))
    edit.release(DOCKERS, IPv4Address("10.2.3.2"))
    assert edit.rows() == ([], [])


@pytest.mark.parametrize(
    ("what", "name", "shown"),
    [
        ("network", "e" * 64, "e" * 12),
        ("endpoint", "e" * 64, "e" * 12),
        ("pool", "10.2.0.0/27/beef", "10.2.0.0/27/beef"),
    ],
)
def test_what_is_not_known_is_named(what: str, name: str, shown: str) -> None:
    edit = edit_of(*FULL)
    with pytest.raises(
        UnknownObject, match=f"^{what} {shown} is not known to this plugin; `docker flannel adopt`"
    ):
        getattr(edit, what)(name)


def test_what_is_known_is_found() -> None:
    edit = edit_of(*FULL)
    assert edit.network(NET) == network()
    assert edit.endpoint(END) == endpoint()
    assert edit.pool(POOL.id) == POOL


def test_touched_names_what_was_put_and_what_was_dropped() -> None:
    edit = edit_of(*FULL)
    edit.put(network(OTHER), hold("10.2.3.7"))
    edit.drop(network())
    assert edit.touched(Network) == {NET, OTHER}
    assert edit.touched(Endpoint) == {END}


def test_a_network_is_touched_with_its_endpoints() -> None:
    """Its ports decide what is set for its bridge."""
    edit = edit_of(*FULL)
    edit.put(endpoint(ports=(WEB,)))
    assert edit.touched(Network) == {NET}
    edit = edit_of(*FULL)
    edit.drop(endpoint())
    assert edit.touched(Network) == {NET}


@pytest.mark.parametrize(
    ("change", "durable"),
    [
        (lambda _: None, False),
        (lambda e: e.put(endpoint(END2)), False),
        (lambda e: e.put(hold("10.2.3.9")), False),
        (lambda e: e.put(replace(POOL, cursor=IPv4Address("10.2.3.2"))), False),
        (lambda e: e.drop(endpoint()), False),
        (lambda e: e.put(pool("10.2.3.64/27")), True),
        (lambda e: e.drop(POOL), True),
        (lambda e: e.put(network(OTHER)), True),
        (lambda e: e.drop(network()), True),
        (lambda e: e.put(replace(LEASE, mtu=1400)), True),
    ],
)
def test_networks_pools_and_the_lease_survive_a_power_cut(change: Any, *, durable: bool) -> None:
    edit = edit_of(*FULL)
    change(edit)
    assert edit.durable() is durable


def test_dropped_pools_are_of_type_pool() -> None:
    edit = edit_of(*FULL)
    edit.drop(network())
    edit.drop(POOL)
    _, drop = edit.rows()
    assert {type(r) for r in drop} >= {Pool, Network, Endpoint}
