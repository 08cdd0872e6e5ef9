"""The membership while an etcd in memory is away, has a bad config, or loses events."""

from __future__ import annotations

import threading
import time
from ipaddress import IPv4Network

import pytest

from driver.flannel.lease_types import LeaseTimes
from driver.flannel.membership import MembershipStatus
from driver.model.records import Overlay
from tests.unit.etcd_fake import FakeRegistry
from tests.unit.etcd_member import CONFIG, CONFIG_KEY, FOLDER, Member, peer, value, vtep


def test_a_host_begins_with_what_it_knew(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        registry.change((FOLDER + "10.5.200.0-24", value(20)))
        known = host.until("held", peers={peer(20, "10.5.200.0/24")})
    registry.stop()
    with Member(registry, vtep(11), known) as host:
        now = host.wait(lambda now: bool(now.problems), "a problem")
        assert now == MembershipStatus(
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
        host.wait(lambda now: now.phase == "held" and len(now.peers) == 2, "two peers")
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
    with Member(registry, vtep(11), times=LeaseTimes(100, 10), clock=lambda: clock[0]) as host:
        subnet = host.until("held").subnet
        key = host.key
        registry.stop()
        clock[0] += 1000
        now = host.wait(lambda now: len(now.problems) == 2, "two problems")
        assert (now.phase, now.subnet) == ("unreachable", subnet)
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
        assert (now.phase, now.overlay) == ("waiting", None)
        registry.change((CONFIG_KEY, CONFIG))
        host.until("held")


def test_another_network_moves_a_host_that_nothing_uses(registry: FakeRegistry) -> None:
    with Member(registry, vtep(11)) as host:
        host.until("held")
        registry.change((CONFIG_KEY, CONFIG.replace("10.5.", "10.6.")))
        now = host.until("moved")
        assert isinstance(now.overlay, Overlay)
        assert now.subnet is not None
        assert now.subnet.subnet_of(IPv4Network("10.6.0.0/16"))
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


def test_stopping_does_not_take_long(registry: FakeRegistry) -> None:
    begun = time.monotonic()
    with Member(registry, vtep(11)) as host:
        host.until("held")
    registry.stop()
    with Member(registry, vtep(11)) as host:
        host.until("unreachable")
    assert time.monotonic() - begun < 20
    assert all(not t.name.startswith("etcd") for t in threading.enumerate())
