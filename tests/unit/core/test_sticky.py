"""A container that starts again finds its address, whatever happened to the others meanwhile."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.core.addresses import TOGETHER_S, Wish
from driver.core.edit import Edit
from driver.errors import Conflict, Exhausted
from driver.model.records import Pool
from tests.unit.fakes import seeded
from tests.unit.plugin import Setting
from tests.unit.sample import NOW, hold, lease, pool, state_of

SMALL = pool("10.2.3.0/29")  # .1 is the gateway's, .2 to .6 are for containers
LATER_S = 5.0


class Site:
    """A pool, whose addresses are taken and given back as time goes by."""

    def __init__(self, of: Pool = SMALL) -> None:
        self.pool, self.now = of, NOW
        self.state = state_of(lease("10.2.3.0/24"), of, hold("10.2.3.1", "gateway", of.id))

    def edit(self, after_s: float = LATER_S) -> Edit:
        self.now += after_s
        return Edit(self.state, self.now)

    def take(self, owner: str = "", ip: int = 0) -> int:
        """Take an address and return its last number."""
        edit = self.edit()
        wanted = IPv4Address(f"10.2.3.{ip}") if ip else None
        got = edit.take_address(edit.pool(self.pool.id), Wish(wanted, owner))
        self.state = edit.state
        return got.ip.packed[-1]

    def give(self, *ips: int, apart_s: float = LATER_S) -> None:
        for ip in ips:
            edit = self.edit(apart_s)
            edit.release(edit.pool(self.pool.id), IPv4Address(f"10.2.3.{ip}"))
            self.state = edit.state

    def taken(self) -> set[int]:
        return {h.ip.packed[-1] for h in self.state.holds.values() if h.why == "endpoint"}


@pytest.fixture
def site() -> Site:
    return Site()


def test_what_was_asked_for_by_name_is_given_to_others_last_and_the_oldest_first(
    site: Site,
) -> None:
    assert [site.take(ip=3), site.take(ip=2)] == [3, 2]
    site.give(3, 2)
    assert [site.take() for _ in range(3)] == [4, 5, 6]
    site.give(5)
    assert site.take() == 5
    assert [site.take(), site.take()] == [3, 2], "nothing else is left"
    with pytest.raises(Exhausted):
        site.take()
    site.give(3, 5)
    assert site.take() == 5, "it has not become anybody's in the meantime"
    assert site.take(ip=3) == 3
    with pytest.raises(Conflict, match="already in use"):
        site.take(ip=3)


def test_with_a_name_each_finds_its_own_and_a_new_one_takes_nobodys(site: Site) -> None:
    first = {name: site.take(name) for name in ("web", "db", "job")}
    assert first == {"web": 2, "db": 3, "job": 4}
    site.give(2, 3, 4)
    assert site.take("new") == 5
    assert {name: site.take(name) for name in ("job", "web", "db")} == first
    site.give(3, 2)
    assert [site.take("other"), site.take("more")] == [6, 3], "what came back longest ago"
    assert site.take("db") == 2, "its own is in use"
    site.give(2, 3)
    assert site.take("db") == 2, "where it was last"


def test_without_a_name_a_restart_finds_what_came_back_last(site: Site) -> None:
    assert [site.take() for _ in range(4)] == [2, 3, 4, 5]
    for mine in (3, 2, 5, 4):
        site.give(mine)
        assert site.take() == mine
    site.give(2, 4)  # docker rm -f old; docker restart x
    assert site.take() == 4


@pytest.mark.parametrize("order", [(2, 3, 4), (4, 2, 3), (3, 4, 2)])
def test_those_that_stop_together_start_in_the_order_of_their_last_start(
    site: Site, order: tuple[int, ...]
) -> None:
    """`docker stop a b c` stops all at once, in any order; `docker start a b c` one by one."""
    for _ in range(3):
        assert [site.take() for _ in range(3)] == [2, 3, 4]
        site.give(*order, apart_s=TOGETHER_S / 5)


def test_those_that_stop_one_after_the_other_start_the_other_way_round(site: Site) -> None:
    """`compose stop` begins with those that need the others, and `compose start` ends with them."""
    db, web = site.take(), site.take()
    site.give(web, db)
    assert [site.take(), site.take()] == [db, web]


def test_ip_range_holds_for_what_came_back_too() -> None:
    site = Site(pool("10.2.3.0/28", sub=IPv4Network("10.2.3.8/30")))
    site.take(ip=2)
    site.take("web", ip=9)
    site.give(2, 9)
    assert [site.take(), site.take(), site.take(), site.take()] == [8, 10, 11, 9]
    with pytest.raises(Exhausted):
        site.take()


def test_an_address_of_which_nothing_is_known_is_as_one_that_nobody_had(site: Site) -> None:
    """A state from before claims has only holds."""
    site.state = state_of(*site.state.holds.values(), lease("10.2.3.0/24"), SMALL,
                          hold("10.2.3.2", of=SMALL.id))  # fmt: skip
    site.give(2)
    assert site.state.claims == {}
    assert [site.take("web"), site.take()] == [2, 3]


def test_what_is_known_goes_with_the_pool_and_is_never_more_than_its_addresses(site: Site) -> None:
    for turn in range(50):
        got = site.take(f"job-{turn}")
        site.give(got)
    assert len(site.state.claims) <= 5
    edit = site.edit()
    edit.drop(SMALL)
    assert not edit.state.claims
    assert {r.kind for r in edit.rows()[1]} == {"claim", "hold", "pool"}


def test_only_that_an_address_is_asked_for_by_name_the_first_time_must_outlive_a_power_cut(
    site: Site,
) -> None:
    for wish, durable in ((Wish(), False), (Wish(IPv4Address("10.2.3.5")), True)):
        edit = site.edit()
        edit.take_address(SMALL, wish)
        assert edit.durable() is durable
        site.state = edit.state
    site.give(5)
    edit = site.edit()
    edit.take_address(SMALL, Wish(IPv4Address("10.2.3.5")))
    assert not edit.durable()


def test_docker_29_names_the_container(on: Setting) -> None:
    net = on.docker.create_network()

    def take(name: str) -> str:
        return on.docker.address(net, kind={"com.docker.network.endpoint.name": name})

    one, two = take("one"), take("two")
    for ip in (one, two):
        body = {"PoolID": net.pool, "Address": ip.partition("/")[0]}
        on.plugin.call("IpamDriver.ReleaseAddress", body)
    assert take("new") not in (one, two)
    assert [take("two"), take("one")] == [two, one]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_in_any_course_of_things_nobody_loses_what_nobody_needs(seed: int, *, named: bool) -> None:
    """Containers start and stop at random, some with addresses of their own choice."""
    rng, site = seeded(seed), Site(pool("10.2.3.0/28"))
    fixed = {"s1": 3, "s2": 9, "s3": 14}
    names = [*fixed, *(f"d{n}" for n in range(8))]  # 11 containers, 13 addresses
    running = {name: site.take(ip=ip) for name, ip in fixed.items()}
    first = dict(running)
    for _ in range(400):
        name = rng.choice(names)
        if name in running:
            site.give(running.pop(name), apart_s=rng.choice([0.0, 0.1, LATER_S]))
            continue
        got = running[name] = site.take(name if named else "", fixed.get(name, 0))
        assert sorted(running.values()) == sorted(site.taken())
        assert (got in fixed.values()) == (name in fixed)
        if named:
            assert first.setdefault(name, got) == got
