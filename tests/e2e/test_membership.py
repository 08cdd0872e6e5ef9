"""The membership on an etcd in memory: what is in the snapshot, and what is left in etcd."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from driver.flannel import lease_value, read_leases
from driver.lease_steps import Terms
from driver.membership import Snapshot
from driver.model import Overlay, Peer
from driver.peers import Own, sort_peers
from tests.unit.etcd_fake import FakeRegistry
from tests.unit.etcd_member import CONFIG, PREFIX, Member, vtep

N = IPv4Network
FOLDER = f"{PREFIX}/subnets/"
CONFIG_KEY = f"{PREFIX}/config"


@pytest.fixture
def registry() -> FakeRegistry:
    made = FakeRegistry()
    made.change((CONFIG_KEY, CONFIG))
    return made


def value(number: int) -> str:
    own = vtep(number)
    return lease_value(own.public_ip, "vxlan", 1, own.mac)


def peer(number: int, subnet: str) -> Peer:
    own = vtep(number)
    return Peer(N(subnet), own.public_ip, "vxlan", own.mac)


def test_a_lease_is_taken_and_peers_are_followed(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        host.until("held", peers=frozenset(), problems=())
        assert host.states == ["acquiring", "held"]
        assert registry.values()[host.key] == value(11)
        assert registry.hangs_on[host.key] in registry.leases
        registry.change(
            (FOLDER + "10.5.200.0-24", value(20)), (FOLDER + "10.5.201.0-24", value(21))
        )
        host.until("held", peers={peer(20, "10.5.200.0/24"), peer(21, "10.5.201.0/24")})
        registry.change((FOLDER + "10.5.200.0-24", value(22)), (FOLDER + "10.5.201.0-24", None))
        host.until("held", peers={peer(22, "10.5.200.0/24")})
        key = host.key
    assert registry.values()[key] == value(11)


def test_two_hosts_are_each_others_peers(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as one, Member(registry, vtep(12)) as two:
        one.wait(lambda now: len(now.peers) == 1, "a peer")
        two.wait(lambda now: len(now.peers) == 1, "a peer")
        assert one.now.peers == {peer(12, str(two.subnet))}
        assert two.now.peers == {peer(11, str(one.subnet))}


def test_what_cannot_be_read_is_told_and_takes_nobody_along(registry: FakeRegistry) -> None:
    registry.change((FOLDER + "10.5.200.0-24", value(20)))
    with Member(registry, vtep(11)) as host:
        host.until("held", peers={peer(20, "10.5.200.0/24")})
        registry.change(
            (FOLDER + "10.5.202.0-24", "{"),
            (f"{PREFIX}/subnetsXYZ/hello", "world"),
            (FOLDER + "10.5.203.0-24", value(11).replace("192.0.2.11", "127.0.0.1")),
        )
        now = host.wait(lambda now: len(now.problems) == 3, "three problems")
        assert now.peers == {peer(20, "10.5.200.0/24")}
        registry.change((f"{PREFIX}/subnetsXYZ/hello", None), (FOLDER + "10.5.202.0-24", None))
        now = host.wait(lambda now: len(now.problems) == 1, "one problem")
        assert now.peers == {peer(20, "10.5.200.0/24")}


def test_a_stale_view_at_the_start_loses_the_race_and_tries_again(registry: FakeRegistry) -> None:
    def take() -> None:
        registry.change((FOLDER + "10.5.1.0-24", value(20)))

    registry.before_put.append(take)
    with Member(registry, vtep(11), choose=lambda free: free[0]) as host:
        host.until("held", subnet=N("10.5.2.0/24"))
        assert registry.values()[FOLDER + "10.5.1.0-24"] == value(20)
    assert len(registry.leases) == 1


@pytest.mark.parametrize("_round", range(5))
def test_many_at_once_get_a_subnet_each(_round: int) -> None:
    registry = FakeRegistry()
    registry.change(
        (CONFIG_KEY, '{"Network": "10.5.0.0/25", "SubnetLen": 28, "Backend": {"Type": "vxlan"}}')
    )
    hosts = [Member(registry, vtep(10 + n)) for n in range(7)]
    for host in hosts:
        host.__enter__()
    try:
        for host in hosts:
            host.until("held")
        assert len({host.subnet for host in hosts}) == 7
        assert len({text for k, text in registry.values().items() if k != CONFIG_KEY}) == 7
    finally:
        for host in hosts:
            host.__exit__(None, None, None)


def test_an_answer_that_is_lost_does_no_harm(registry: FakeRegistry) -> None:
    registry.lose_answers = 1
    with Member(registry, vtep(11)) as host:
        host.until("held", problems=())
        assert list(registry.values()) == [CONFIG_KEY, host.key]
        assert "unreachable" in host.states


def test_a_lease_is_renewed_before_it_ends(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11), terms=Terms(3, 2.8)) as host:
        host.until("held")
        first = registry.keys[host.key].revision
        host.wait(lambda _: registry.keys[host.key].revision > first + 2, "three renewals")
        assert registry.values()[host.key] == value(11)
        assert set(host.states[2:]) == {"renewing", "held"}
        assert {s.subnet for s in host.seen if s.state == "renewing"} == {host.subnet}


def test_another_address_is_written_at_once(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        host.until("held")
        key = host.key
        host.membership.identify(vtep(12))
        host.wait(lambda _: registry.values()[key] == value(12), "another value")
        host.until("held")
        assert host.key == key


def test_a_deleted_lease_comes_back(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        subnet = host.until("held").subnet
        for _ in range(3):
            registry.change((host.key, None))
            host.wait(lambda _: host.key in registry.values(), "the lease")
            host.until("held", subnet=subnet)
        assert {s.subnet for s in host.seen[1:]} == {subnet}


def test_everything_deleted_comes_back_but_for_the_config(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        overlay = host.until("held").overlay
        registry.change(*((k, None) for k in list(registry.keys)))
        host.wait(lambda now: bool(now.problems) and now.state == "held", "a problem")
        assert host.now.overlay == overlay
        assert list(registry.values()) == [host.key]
        registry.change((CONFIG_KEY, CONFIG))
        host.until("held", problems=())


def test_a_lease_taken_by_another_host_is_left_to_it(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        before = host.until("held").subnet
        host.in_use = True
        key = host.key
        registry.change((key, value(20)))
        lost = host.until("lost", subnet=None)
        assert lost.peers == frozenset()
        assert registry.values()[key] == value(20)
        host.in_use = False
        after = host.until("moved")
        assert after.subnet != before
        assert after.peers == {peer(20, str(before))}
        assert registry.values()[key] == value(20)


def test_two_hosts_with_one_public_ip(registry: FakeRegistry) -> None:
    twin = replace(vtep(11), mac=vtep(99).mac)
    with Member(registry, vtep(11)) as one:
        one.until("held")
        with Member(registry, twin) as two:
            refused = two.until("refused", subnet=None)
            assert vtep(11).mac in refused.problems[0]
            one.until("held")
            assert registry.values()[one.key] == value(11), "who had it first keeps it"
            two.membership.identify(vtep(12))
            two.until("moved", peers={peer(11, str(one.subnet))})
    assert sorted(v for k, v in registry.values().items() if k != CONFIG_KEY) == [
        value(11),
        value(12),
    ]


# --- etcd away ---


def test_a_host_begins_with_what_it_knew(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        registry.change((FOLDER + "10.5.200.0-24", value(20)))
        known = host.until("held", peers={peer(20, "10.5.200.0/24")})
    registry.stop()
    with Member(registry, vtep(11), known) as host:
        now = host.wait(lambda now: bool(now.problems), "a problem")
        assert now == Snapshot(
            known.overlay,
            known.subnet,
            known.peers,
            "unreachable",
            ("etcd cannot be reached: it is off",),
        )
        registry.start()
        host.until("held", subnet=known.subnet, peers=known.peers, problems=())
        assert {s.subnet for s in host.seen} == {known.subnet}
        assert {s.peers for s in host.seen} == {known.peers}


@pytest.mark.parametrize("compacted", [False, True])
def test_what_happened_while_etcd_was_away_is_caught_up(
    registry: FakeRegistry, compacted: bool
) -> None:
    registry.change((FOLDER + "10.5.200.0-24", value(20)), (FOLDER + "10.5.201.0-24", value(21)))
    with Member(registry, vtep(11)) as host:
        host.wait(lambda now: now.state == "held" and len(now.peers) == 2, "two peers")
        registry.stop()
        host.until("unreachable")
        assert len(host.now.peers) == 2
        registry.change((FOLDER + "10.5.200.0-24", None), (FOLDER + "10.5.202.0-24", value(22)))
        registry.change((FOLDER + "10.5.201.0-24", value(23)))
        if compacted:
            registry.compact()
        lists = registry.calls.count("read")
        registry.start()
        host.until("held", peers={peer(22, "10.5.202.0/24"), peer(23, "10.5.201.0/24")})
        # the config is always read again; the leases only when the history is gone
        assert (registry.calls.count("read") - lists > 1) is compacted


@pytest.mark.parametrize("taken", [False, True])
def test_etcd_away_longer_than_the_lease_lasts(taken: bool) -> None:
    clock = [0.0]
    registry = FakeRegistry(lambda: clock[0])
    registry.change((CONFIG_KEY, CONFIG))
    with Member(registry, vtep(11), terms=Terms(100, 10), clock=lambda: clock[0]) as host:
        subnet = host.until("held").subnet
        key = host.key
        registry.stop()
        clock[0] += 1000
        now = host.wait(lambda now: len(now.problems) == 2, "two problems")
        assert (now.state, now.subnet) == ("unreachable", subnet)
        assert f"our lease of {subnet} has run out" in now.problems[1]
        with registry.changed:
            registry.start()
            registry.expire()
            if taken:
                registry.change((key, value(20)))
        host.until("moved" if taken else "held")
        assert (host.subnet == subnet) is not taken
        assert registry.values()[key] == value(20 if taken else 11)


def test_a_bad_config_is_waited_out() -> None:
    registry = FakeRegistry()
    with Member(registry, vtep(11)) as host:
        host.until("waiting", problems=(f"there is no network config in etcd at {CONFIG_KEY}",))
        registry.change((CONFIG_KEY, '{"Network": "10.5.0.0/16"}'))
        now = host.wait(lambda now: "udp" in now.problems[0], "another problem")
        assert (now.state, now.overlay) == ("waiting", None)
        registry.change((CONFIG_KEY, CONFIG))
        host.until("held")


def test_another_network_moves_a_host_that_nothing_uses(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        host.until("held")
        registry.change((CONFIG_KEY, CONFIG.replace("10.5.", "10.6.")))
        now = host.until("moved")
        assert isinstance(now.overlay, Overlay)
        assert now.subnet is not None
        assert now.subnet.subnet_of(N("10.6.0.0/16"))
        assert list(registry.values()) == [CONFIG_KEY, host.key]


def test_lists_make_good_for_events_that_never_came(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11), relist_s=0.1) as host:
        host.until("held")
        with registry.changed:
            registry.change((FOLDER + "10.5.200.0-24", value(20)))
            registry.history.pop()
        host.until("held", peers={peer(20, "10.5.200.0/24")})


def test_an_error_nobody_thought_of_does_not_end_the_thread(registry: FakeRegistry) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    registry.before_put.append(fail)
    with Member(registry, vtep(11)) as host:
        host.until("held", problems=())
        assert any("ZeroDivisionError" in str(s.problems) for s in host.seen)


# --- histories ---


@pytest.mark.parametrize("seed", range(3))
def test_a_history_of_events_ends_in_exactly_the_peers_there_are(seed: int) -> None:
    source = random.Random(seed)  # noqa: S311
    registry = FakeRegistry()
    registry.change((CONFIG_KEY, CONFIG))
    keys = [f"10.5.{n}.0-24" for n in range(200, 212)] + ["10.6.1.0-24", "hello", "10.5.200.0-25"]
    with Member(registry, vtep(11)) as host:
        host.until("held")
        for _ in range(40):
            changes = {FOLDER + source.choice(keys): None for _ in range(source.randint(1, 4))}
            registry.change(*((k, arbitrary(source)) for k in changes))
            chance = source.random()
            if chance < 0.1:
                registry.stop()
                time.sleep(0.001)
                registry.start()
            elif chance < 0.2:
                registry.compact()
        own = Own(vtep(11).public_ip, vtep(11).mac, host.subnet)
        entries = [e for k, e in sorted(registry.keys.items()) if k.startswith(FOLDER)]
        records, bad = read_leases(entries, {})
        assert host.now.overlay is not None
        peers, faults = sort_peers(records, host.now.overlay, own)
        host.until("held", peers=peers, problems=(*bad, *faults))


def arbitrary(source: random.Random) -> str | None:
    chance = source.random()
    if chance < 0.3:
        return None
    if chance < 0.4:
        return source.choice(["{", "null", '{"PublicIP":null}', '{"PublicIP":"127.0.0.1"}'])
    return value(source.randint(20, 40))


def test_stopping_does_not_take_long(registry: FakeRegistry) -> None:
    begun = time.monotonic()
    with Member(registry, vtep(11)) as host:
        host.until("held")
    registry.stop()
    with Member(registry, vtep(11)) as host:
        host.until("unreachable")
    assert time.monotonic() - begun < 20
    assert all(not t.name.startswith("etcd") for t in threading.enumerate())
