"""Devices, neighbours and routes of an overlay on a real kernel: made, mended and removed."""

from ipaddress import IPv4Address

import pytest

from driver.host.netlink.constants import GROUP
from driver.model.objects import Fdb, LinkAddress, Neighbour, PeerRoute, Plan, Sysctl, Vxlan, diff
from driver.model.records import replace
from tests.kernel.adapters import refusals
from tests.kernel.overlays.sample import (
    ALL,
    DEVICE,
    FDB,
    NAME,
    NEIGHBOUR,
    OURS,
    OVERLAY,
    PEERS,
    ROUTE,
    VTEP,
    everything,
    repair,
    run,
    shown,
    wanted,
)
from tests.unit.contract import check_adapter, check_failure

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    "change",
    [
        (DEVICE, replace(DEVICE, mtu=1400, learning=True)),
        (DEVICE, replace(DEVICE, mac="fe:2d:0c:76:f0:82")),
        (DEVICE, replace(DEVICE, port=4789)),
        (DEVICE, replace(DEVICE, vni=7, gbp=True)),
        (DEVICE, replace(DEVICE, local=IPv4Address("192.168.77.12"), parent="far")),
        (NEIGHBOUR, replace(NEIGHBOUR, mac="aa:27:46:00:00:99")),
        (FDB, replace(FDB, dst=IPv4Address("192.168.77.99"))),
        (ROUTE, replace(ROUTE, via=IPv4Address("192.168.77.24"), link="eth0", onlink=False)),
    ],
    ids=lambda pair: type(pair[0]).__name__,
)
def test_keeps_the_contract(overlays, change):
    check_adapter(overlays, [DEVICE, NEIGHBOUR, FDB, ROUTE], change)


def test_what_fails_does_not_keep_the_rest(overlays):
    absent = replace(NEIGHBOUR, link="flannel.9")
    check_failure(overlays, [DEVICE, NEIGHBOUR, FDB], absent, "flannel.9 is missing")


def test_is_what_flannel_makes(full, host):
    assert full.observe() == ALL
    link = shown(host, "ip", "-d", "-j", "addr", "show", "dev", NAME)[0]
    data = link["linkinfo"]["info_data"]
    assert (link["address"], link["mtu"], link["flags"]) == (
        VTEP.mac,
        1450,
        ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
    )
    found = [(a["local"], a["prefixlen"], a["scope"]) for a in link["addr_info"][:1]]
    assert found == [("10.5.10.0", 32, "global")]
    assert {key: data[key] for key in ("id", "link", "local", "port", "learning", "ttl")} == {
        "id": 1,
        "link": "eth0",
        "local": "192.168.77.11",
        "port": 8472,
        "learning": False,
        "ttl": 0,
    }
    assert data["udp_csum"] is True
    assert host.run("ip", "route", "show", "dev", NAME).splitlines() == [
        f"10.5.24.0/24 via 10.5.24.0 {OURS} onlink ",
        f"10.5.25.0/24 via 10.5.25.0 {OURS} onlink ",
    ]
    neighbours = host.run("ip", "neigh", "show", "dev", NAME, "nud", "permanent").splitlines()
    assert sorted(neighbours) == [
        "10.5.24.0 lladdr aa:27:46:00:00:18 PERMANENT ",
        "10.5.25.0 lladdr aa:27:46:00:00:19 PERMANENT ",
    ]
    assert sorted(host.run("bridge", "fdb", "show", "dev", NAME).splitlines()) == [
        "aa:27:46:00:00:18 dst 192.168.77.24 self permanent",
        "aa:27:46:00:00:19 dst 192.168.77.25 self permanent",
    ]


def test_leaves_nothing(node, host):
    before = everything(host)
    node.apply(diff((), ALL))
    node.apply(diff(ALL, ()))
    assert node.observe() == frozenset()
    assert everything(host) == before


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (f"link set {NAME} down", {Vxlan, Neighbour, PeerRoute}),
        (f"link del {NAME}", {Vxlan, Neighbour, Fdb, PeerRoute, LinkAddress, Sysctl}),
        (f"link set {NAME} mtu 1300", {Vxlan}),
        (f"link set {NAME} address 02:00:00:00:00:01", {Vxlan, Neighbour}),
        (f"link set {NAME} group 0", {Vxlan}),
        (f"link set {NAME} type vxlan learning", {Vxlan}),
        (f"link set {NAME} type vxlan local 192.168.77.99", {Vxlan}),
        (f"link set {NAME} type vxlan dev far", {Vxlan}),
        (f"addr del 10.5.10.0/32 dev {NAME}", {LinkAddress, Neighbour, PeerRoute}),
        (f"addr add 10.5.99.0/32 dev {NAME}", {LinkAddress}),
        (f"neigh del 10.5.24.0 dev {NAME}", {Neighbour}),
        (f"neigh replace 10.5.24.0 lladdr 02:00:00:00:00:01 dev {NAME}", {Neighbour}),
        (f"neigh replace 10.5.24.0 lladdr {FDB.mac} dev {NAME} nud reachable", {Neighbour}),
        (f"neigh add 10.5.9.0 lladdr 02:00:00:00:00:01 dev {NAME} nud permanent", {Neighbour}),
        (f"bridge fdb del {FDB.mac} dev {NAME}", {Fdb}),
        (f"bridge fdb replace {FDB.mac} dev {NAME} dst 192.168.77.99 self permanent", {Fdb}),
        (f"bridge fdb add 02:00:00:00:00:01 dev {NAME} dst 192.168.77.9 self permanent", {Fdb}),
        (f"bridge fdb append 00:00:00:00:00:00 dev {NAME} dst 192.168.77.9", {Fdb}),
        (f"route del 10.5.24.0/24 {OURS}", {PeerRoute}),
        (f"route change 10.5.24.0/24 via 192.168.77.9 dev eth0 {OURS}", {PeerRoute}),
        (f"route change 10.5.24.0/24 via 10.5.25.0 dev {NAME} onlink {OURS}", {PeerRoute}),
        (f"route change 10.5.24.0/24 dev eth0 {OURS}", {PeerRoute}),
        (f"route add 10.5.99.0/24 via 10.5.99.0 dev {NAME} onlink {OURS}", {PeerRoute}),
    ],
)
def test_drift_is_seen_and_repaired(full, host, line, kinds):
    run(host, line)
    assert repair(full) == kinds


def test_second_way_to_a_direct_peer_is_seen_and_repaired(full, host):
    """The first is as it should be: half of the flows would leave by another."""
    want = wanted(PEERS, replace(OVERLAY, direct_routing=True))
    full.apply(diff(ALL, want))
    nexthops = " ".join(f"nexthop via 192.168.77.{n} dev eth0" for n in (24, 9))
    run(host, f"route change 10.5.24.0/24 {OURS} {nexthops}")
    assert repair(full, want) == {PeerRoute}
    assert "nexthop" not in host.run("ip", "route", "show", "10.5.24.0/24")


def test_setting_is_repaired(full, host):
    host.sysctl(f"ipv6/conf/{NAME}/accept_ra", "2")
    assert repair(full) == {Sysctl}


@pytest.mark.parametrize("what", [{"port": 4789}, {"vni": 2}, {"gbp": True}])
def test_made_again_it_keeps_its_mac_and_gets_all_back(full, host, what):
    """Number, port and GBP cannot be changed: the kernel takes all entries with the device."""
    want = wanted(PEERS, replace(OVERLAY, **what))
    full.apply(diff(ALL, want))
    repair(full, want)
    assert diff(full.observe(), want) == Plan()
    devices = [link for link in shown(host, "ip", "-j", "link") if "flannel" in link["ifname"]]
    assert [device["address"] for device in devices] == [VTEP.mac]


@pytest.mark.parametrize("what", ["id 1 dstport 9999", "id 7 dstport 8472"])
def test_one_of_ours_that_is_another_is_made_again(full, host, what):
    run(host, f"link del {NAME}")
    run(host, f"link add {NAME} group {GROUP} up type vxlan {what} dev far")
    assert repair(full) == {Vxlan, Neighbour, Fdb, PeerRoute, LinkAddress, Sysctl}


def test_lower_device_comes_back(full, host):
    """The kernel takes the device away with its lower one."""
    run(host, "link del eth0")
    assert full.observe() == frozenset()
    host.ip("link add eth0 up type veth peer name far", "addr add 192.168.77.11/24 dev eth0")
    repair(full)


def test_without_lower_device(overlays, host):
    run(host, "link del eth0")
    said = refusals(overlays, Plan(add=(DEVICE, NEIGHBOUR, FDB, ROUTE)))
    assert said == ["link eth0 is missing", f"link {NAME} is missing"]
