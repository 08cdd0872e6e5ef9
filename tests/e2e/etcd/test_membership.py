"""The membership on an etcd in memory: its status, and what it writes to etcd."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.flannel.allocation import CHOICES, preferred
from driver.flannel.lease_types import LeaseTimes, ThisHost
from driver.flannel.peers import select_peers
from driver.flannel.records import read_leases
from driver.model.records import Overlay
from tests.unit.etcd_fake import FakeRegistry
from tests.unit.etcd_member import (
    CONFIG,
    CONFIG_KEY,
    FOLDER,
    PREFIX,
    Member,
    peer,
    this_host,
    together,
    value,
    vtep,
)


def test_a_lease_is_taken_and_peers_are_followed(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        host.until("held", peers=frozenset(), problems=())
        assert host.phases == ["acquiring", "held"]
        assert registry.values()[host.key] == value(11)
        assert registry.attached[host.key] in registry.leases
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
    free = list(IPv4Network("10.5.0.0/16").subnets(new_prefix=24))[1 : CHOICES + 1]
    wanted = preferred(IPv4Address("192.0.2.11"), free)
    key = FOLDER + str(wanted).replace("/", "-")

    def take() -> None:
        registry.change((key, value(20)))

    registry.before_put.append(take)
    with Member(registry, vtep(11)) as host:
        host.until("held", peers={peer(20, str(wanted))})
        assert host.subnet != wanted
        assert registry.values()[key] == value(20)
    assert len(registry.leases) == 1


@pytest.mark.parametrize("_round", range(5))
def test_many_at_once_get_a_subnet_each(_round: int) -> None:
    registry = FakeRegistry()
    registry.change(
        (CONFIG_KEY, '{"Network": "10.5.0.0/25", "SubnetLen": 28, "Backend": {"Type": "vxlan"}}')
    )
    hosts = [Member(registry, vtep(10 + n)) for n in range(7)]
    with together(hosts):
        for host in hosts:
            host.until("held")
        assert len({host.subnet for host in hosts}) == 7
        assert len({text for k, text in registry.values().items() if k != CONFIG_KEY}) == 7


def test_an_answer_that_is_lost_does_no_harm(registry: FakeRegistry) -> None:
    registry.lose_answers = 1
    with Member(registry, vtep(11)) as host:
        host.until("held", problems=())
        assert list(registry.values()) == [CONFIG_KEY, host.key]
        assert "unreachable" in host.phases


def test_a_lease_is_renewed_before_it_ends(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11), times=LeaseTimes(3, 2.8)) as host:
        host.until("held")
        first = registry.keys[host.key].revision
        host.wait(lambda _: registry.keys[host.key].revision > first + 2, "three renewals")
        assert registry.values()[host.key] == value(11)
        assert set(host.phases[2:]) == {"renewing", "held"}
        assert {s.subnet for s in host.seen if s.phase == "renewing"} == {host.subnet}


def test_another_address_is_written_at_once(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        host.until("held")
        key = host.key
        host.membership.set_host(this_host(12))
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
        host.wait(lambda now: bool(now.problems) and now.phase == "held", "a problem")
        assert host.now.overlay == overlay
        assert list(registry.values()) == [host.key]
        registry.change((CONFIG_KEY, CONFIG))
        host.until("held", problems=())


def test_a_lease_taken_by_another_host_is_left_to_it(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        before = host.until("held").subnet
        host.in_use = "network 0123456789ab"
        key = host.key
        registry.change((key, value(20)))
        lost = host.until("lost", subnet=None)
        assert lost.peers == frozenset()
        assert registry.values()[key] == value(20)
        host.in_use = ""
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
            two.membership.set_host(this_host(12))
            two.until("moved", peers={peer(11, str(one.subnet))})
    assert sorted(v for k, v in registry.values().items() if k != CONFIG_KEY) == [
        value(11),
        value(12),
    ]


def test_beside_a_flanneld_nothing_is_written_and_peers_are_followed(
    registry: FakeRegistry,
) -> None:
    theirs = {FOLDER + "10.5.7.0-24": value(11).replace(vtep(11).mac, vtep(99).mac)}
    registry.change(*theirs.items(), (FOLDER + "10.5.200.0-24", value(20)))
    before, asked = dict(registry.keys), list[int]()
    here = [True]

    def sign(overlay: Overlay) -> str:
        asked.append(overlay.vni)
        return "a flanneld is here" if here[0] else ""

    with Member(registry, vtep(11), flanneld_sign=sign) as host:
        now = host.until("beside", peers={peer(20, "10.5.200.0/24")})
        assert "a flanneld is here" in now.problems
        host.wait(lambda _: len(asked) > 3, "several looks")
        assert registry.keys == before
        registry.change((FOLDER + "10.5.200.0-24", None))
        host.until("beside", peers=frozenset())
        here[0] = False
        host.until("held", subnet=IPv4Network("10.5.7.0/24"), problems=())
        assert registry.values()[host.key] == value(11)
        # and one that comes later
        here[0] = True
        key = host.key
        host.membership.set_host(this_host(12))
        host.until("beside", subnet=IPv4Network("10.5.7.0/24"))
        assert registry.values()[key] == value(11)


def test_a_host_and_its_copy_do_not_fight(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as one:
        now = one.until("held")
        copy = Member(registry, replace(vtep(11), public_ip=vtep(12).public_ip), known=now)
        copy.in_use = "network 0123456789ab"
        with copy:
            refused = copy.until("refused", subnet=None)
            assert "with our own MAC 02:00:00:00:00:0b" in refused.problems[0]
            one.until("held")
            assert registry.values()[one.key] == value(11), "who had it first keeps it"


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
        own = ThisHost(vtep(11).public_ip, vtep(11).mac, host.subnet)
        entries = [e for k, e in sorted(registry.keys.items()) if k.startswith(FOLDER)]
        records, bad = read_leases(entries, {})
        assert host.now.overlay is not None
        peers, faults = select_peers(records, host.now.overlay, own)
        host.until("held", peers=peers, problems=(*bad, *faults))


def arbitrary(source: random.Random) -> str | None:
    chance = source.random()
    if chance < 0.3:
        return None
    if chance < 0.4:
        return source.choice(["{", "null", '{"PublicIP":null}', '{"PublicIP":"127.0.0.1"}'])
    return value(source.randint(20, 40))
