"""Settings under /proc/sys/net: read, written, and seen when somebody else changes them."""

import time
from contextlib import closing

import pytest

from driver.core.bridge import plan_forwarding
from driver.host.links import Links
from driver.host.sysctls import Sysctls
from driver.model.facts import Facts
from driver.model.objects import ALL, Plan, Sysctl, diff
from driver.model.records import replace
from tests.kernel.adapters import facts_of
from tests.kernel.netlink.sample import BRIDGE, N1, N2, NETWORKS

pytestmark = pytest.mark.kernel
FORWARDING = set(plan_forwarding([ALL, *(net.bridge for net in (N1, N2))], Facts()))


def values(netlink):
    return {(t.link, t.name): t.value for t in netlink.observe() if isinstance(t, Sysctl)}


def test_a_change_of_a_setting_is_seen(host):
    name = "forwarding"
    with closing(Links()) as netlink:
        facts_of(netlink)
        netlink.docker_acts()
        netlink.apply(diff((), [*NETWORKS, *FORWARDING]))
        assert not netlink.disturbed(), "we did it ourselves"
        netlink.observe()
        host.sysctl(f"ipv4/conf/{BRIDGE.name}/{name}", "0")
        assert netlink.disturbed()
        assert values(netlink)[BRIDGE.name, name] == "0"
        assert not netlink.disturbed(), "it is known now"
        netlink.apply(Plan(add=(Sysctl(BRIDGE.name, "ipv4", name, "1"),)))
        assert values(netlink)[BRIDGE.name, name] == "1"
        host.ip(f"link del {N1.bridge}")
        assert not netlink.disturbed(), "the kernel tells of links that go"


def test_forwarding_is_switched_on_for_all_and_each(host):
    with closing(Links()) as netlink:
        host.sysctl("ipv4/ip_forward", "1")
        assert facts_of(netlink).forwards
        netlink.apply(diff((), [*NETWORKS, *FORWARDING]))
        host.sysctl("ipv4/ip_forward", "0")
        assert netlink.disturbed()
        missing = FORWARDING - netlink.observe()
        assert missing == FORWARDING, "the kernel switches all off"
        netlink.apply(Plan(add=tuple(missing)))
        assert netlink.observe() >= FORWARDING
        assert host.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"


def test_forwarding_waits_for_docker_which_closes_the_host_when_it_switches_it_on(host):
    with closing(Links()) as netlink:
        host.sysctl("ipv4/ip_forward", "0")
        facts = facts_of(netlink)
        assert not facts.forwarding
        assert not facts.forwards
        netlink.docker_acts()
        assert facts_of(netlink) == replace(facts, forwards=True)


def test_forwarding_is_left_to_the_administrator(host):
    with closing(Links(forwards=False)) as netlink:
        netlink.apply(diff((), NETWORKS))
        for value in "10":
            host.sysctl("ipv4/ip_forward", value)
            assert facts_of(netlink).forwarding is (value == "1")
            assert not facts_of(netlink).forwards
            assert not any("forwarding" in key for key in values(netlink))


def test_without_a_network_forwarding_is_not_ours(host):
    with closing(Links()) as netlink:
        host.sysctl("ipv4/ip_forward", "1")
        assert facts_of(netlink).forwards
        assert netlink.observe() == frozenset()


def test_what_is_so_already_is_not_written(host):
    """Where /proc/sys is read-only nothing fails that need not be written."""
    with host:
        settings = Sysctls()
        now = settings.read(Sysctl("lo", "ipv4", "forwarding", "1"))
        before = time.process_time()
        for _ in range(1000):
            settings.write(Sysctl("lo", "ipv4", "forwarding", now))
            assert not settings.disturbed()
        assert time.process_time() - before < 1, "some 10 µs each"
        settings.write(Sysctl("lo", "ipv4", "no_such_setting", "1"))
