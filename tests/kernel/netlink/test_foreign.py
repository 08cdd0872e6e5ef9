"""Links and routes of others, which the netlink adapter leaves alone."""

from ipaddress import IPv4Network

import pytest

from driver.host.netlink.constants import GROUP, PROTOCOL
from driver.model.objects import Bridge, Plan, Sysctl, UnreachableRoute, Veth
from tests.kernel.adapters import refusals
from tests.kernel.netlink.sample import (
    ADDRESS,
    BRIDGE,
    E1,
    E2,
    E3,
    LEASE,
    N1,
    N2,
    NO_IPV6,
    V1,
    V2,
    V3,
    repair,
)

pytestmark = pytest.mark.kernel

FOREIGN = "exists and is not this plugin's"


def test_foreign_links_are_left_alone(netlink, host):
    host.ip(
        f"link add {N1.bridge} type bridge",
        f"link add {E3.host_end} type veth peer name other",
        f"link add {N2.bridge} group {GROUP} type veth peer name another",
    )
    before = host.run("ip", "-d", "addr")
    assert netlink.observe() == frozenset()
    assert netlink.links() == frozenset()
    said = refusals(netlink, Plan(add=(BRIDGE, V1, ADDRESS, NO_IPV6)))
    assert said == [f"link {N1.bridge} {FOREIGN}; rename or delete it"] * 4
    netlink.apply(Plan(remove=(ADDRESS, V3, BRIDGE, Bridge(N2.bridge, "", 0, ""))))
    netlink.close()
    assert host.run("ip", "-d", "addr") == before


def test_foreign_host_or_container_end(netlink, host):
    host.ip(
        f"link add {E1.host_end} type veth peer name other",
        f"link add {E2.container_end} type veth peer name another",
    )
    said = refusals(netlink, Plan(add=(BRIDGE, V1, V2)))
    assert said == [
        f"link {E1.host_end} {FOREIGN}; rename or delete it",
        f"link {E2.container_end} {FOREIGN}; rename or delete it",
    ]
    assert {t for t in netlink.observe() if not isinstance(t, Sysctl)} == {BRIDGE}
    assert "alias" not in host.run("ip", "link", "show", E1.host_end)


def test_link_that_a_crash_left_without_alias_is_adopted(netlink, host):
    host.ip(
        f"link add {N1.bridge} group {GROUP} address {BRIDGE.mac} type bridge",
        f"link add {E1.host_end} group {GROUP} type veth peer name {E1.container_end}",
    )
    assert {t.owner for t in netlink.observe() if isinstance(t, Bridge | Veth)} == {""}
    repair(netlink)


def test_routes_of_others_stay(netlink, host):
    ours = UnreachableRoute(LEASE.subnet)
    host.ip(
        f"route add unreachable {LEASE.subnet} metric 5",
        f"route add unreachable 10.8.0.0/16 proto {PROTOCOL} table 100",
        "route add unreachable 10.7.0.0/16 metric 91000",
    )
    before = host.run("ip", "route", "show", "table", "all", "type", "unreachable")
    assert netlink.observe() == frozenset()
    netlink.apply(Plan(add=(ours,)))
    assert netlink.observe() == {ours}
    netlink.apply(Plan(remove=(ours, UnreachableRoute(IPv4Network("10.7.0.0/16")))))
    assert host.run("ip", "route", "show", "table", "all", "type", "unreachable") == before
    taken = UnreachableRoute(IPv4Network("10.7.0.0/16"))
    assert refusals(netlink, Plan(add=(taken,))) == [
        f"route {taken.dst} {FOREIGN}; delete it",
    ]
