"""Devices, routes and entries of others, which the overlay's adapter leaves alone."""

import pytest

from driver.host.netlink.constants import METRIC, PROTOCOL
from driver.model.objects import PeerRoute, Plan, UnreachableRoute, diff
from driver.model.records import replace
from tests.kernel.adapters import facts_of, refusals
from tests.kernel.overlays.sample import (
    ACCEPT_RA,
    ADDRESS,
    ALL,
    DEVICE,
    ETH0,
    FDB,
    NAME,
    NEIGHBOUR,
    OURS,
    ROUTE,
    SUBNET,
    everything,
    repair,
    run,
)

pytestmark = pytest.mark.kernel

A_FLANNELDS = (
    "exists and is not this plugin's but a flanneld's, it seems: stop that and delete the link, "
    "or use its lease (DOCKER_FLANNEL_LEASE=subnet-file)"
)
MADE = f"{NAME} type vxlan id 1 dev eth0 dstport 8472 local 192.168.77.11 nolearning"


def test_device_of_a_flanneld_is_left_alone(overlays, host):
    host.ip(
        f"link add {MADE}",
        f"link set {NAME} up",
        f"neigh add 10.5.24.0 lladdr 02:00:00:00:00:01 dev {NAME} nud permanent",
        f"route add 10.5.24.0/24 via 10.5.24.0 dev {NAME} onlink",
    )
    run(host, f"bridge fdb add {FDB.mac} dev {NAME} dst 192.168.77.9 self permanent")
    before = everything(host)
    assert overlays.observe() == frozenset()
    said = refusals(overlays, Plan(add=(DEVICE, NEIGHBOUR, FDB, ROUTE)))
    assert said == [f"link {NAME} {A_FLANNELDS}"] * 2
    overlays.apply(Plan(remove=(ROUTE, FDB, NEIGHBOUR, DEVICE)))
    assert everything(host) == before


def test_another_device_with_number_and_port_is_named(overlays, host):
    run(host, "link add old type vxlan id 1 dev eth0 dstport 8472")
    said = refusals(overlays, Plan(add=(DEVICE,)))
    assert said == ["link old has VNI 1 on port 8472 already; delete it or use another"]
    other = replace(DEVICE, port=4789)
    overlays.apply(Plan(add=(other,)))
    assert overlays.observe() == {other}


def test_routes_of_others_stay(full, host):
    host.ip(
        "route add 10.5.24.0/24 via 192.168.77.9",
        f"route add 10.5.98.0/24 via 192.168.77.9 proto {PROTOCOL}",
        f"route add 10.5.97.0/24 via 192.168.77.9 metric {METRIC}",
        f"route add 10.5.96.0/24 via 192.168.77.9 table 100 {OURS}",
    )
    assert full.observe() == ALL
    run(host, f"route del 10.5.24.0/24 {OURS}")
    assert repair(full) == {PeerRoute}
    full.apply(diff(ALL, ()))
    left = host.run("ip", "route", "show", "table", "all", "via", "192.168.77.9").splitlines()
    assert len(left) == 4


def test_unreachable_route_of_the_lease_is_another_item(full):
    lease = frozenset({UnreachableRoute(SUBNET)})
    repair(full, ALL | lease)
    repair(full, lease)
    assert full.observe() == lease


def test_learned_and_passing_entries_are_not_ours(full, host):
    run(host, f"neigh add 10.5.9.0 lladdr 02:00:00:00:00:01 dev {NAME} nud reachable")
    run(host, f"bridge fdb add 02:00:00:00:00:01 dev {NAME} dst 192.168.77.9 self dynamic")
    assert full.observe() == ALL


def test_the_other_adapter_does_not_take_peers_for_its_own(full):
    assert full.netlink.observe() == {ADDRESS, ACCEPT_RA}
    assert facts_of(full.netlink).onlink == ETH0.onlink
