"""The overlay's adapters on a real kernel, each test in a network namespace of its own."""

import json
import random
import re
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace

import pytest

from driver.bridge import plan_lease
from driver.errors import Unavailable
from driver.events import AT_ONCE, GROUP, METRIC, PROTOCOL
from driver.kernel import Netlink
from driver.model import External, Lease, Overlay, Peer, Vtep, replace
from driver.things import Address, Fdb, Neighbour, PeerRoute, Plan, Sysctl, Vxlan, diff
from driver.underlay import Underlay
from driver.vtep import Overlays
from driver.vxlan import plan_peers, plan_vtep
from tests.kernel.adapters import Listener, drops
from tests.unit.contract import check_failure, check_host

pytestmark = pytest.mark.kernel

NET, SUBNET = IPv4Network("10.5.0.0/16"), IPv4Network("10.5.10.0/24")
OVERLAY = Overlay(NET, 24, IPv4Address("10.5.1.0"), IPv4Address("10.5.255.0"), "vxlan")
VTEP = Vtep(IPv4Address("192.168.77.11"), "fe:2d:0c:76:f0:81")
ETH0 = External("eth0", VTEP.public_ip, 1500, (IPv4Network("192.168.77.0/24"),))
A_FLANNELDS = (
    "exists and is not this plugin's but a flanneld's, it seems: stop that and delete the link, "
    "or use its lease (DOCKER_FLANNEL_LEASE=subnet-file)"
)
OURS = f"proto {PROTOCOL} metric {METRIC}"


def peer(number, host=None, mac=None):
    host = number if host is None else host
    public = IPv4Address("192.168.0.0") + 256 * 77 + host
    mac = f"aa:27:46:00:{host >> 8:02x}:{host & 255:02x}" if mac is None else mac
    return Peer(IPv4Network((int(NET[0]) + 256 * number, 24)), public, "vxlan", mac)


PEERS = (peer(24), peer(25))
DEVICE, ADDRESS, ACCEPT_RA = plan_vtep(OVERLAY, SUBNET, VTEP, ETH0)
NEIGHBOUR, FDB, ROUTE = plan_peers(OVERLAY, PEERS[:1], VTEP, ETH0)
ALL = frozenset((DEVICE, ADDRESS, ACCEPT_RA, *plan_peers(OVERLAY, PEERS, VTEP, ETH0)))
NAME = "flannel.1"
MADE = f"{NAME} type vxlan id 1 dev eth0 dstport 8472 local 192.168.77.11 nolearning"


def wanted(peers, overlay=OVERLAY):
    things = *plan_vtep(overlay, SUBNET, VTEP, ETH0), *plan_peers(overlay, peers, VTEP, ETH0)
    return frozenset(things)


@pytest.fixture(autouse=True)
def underlay(host):
    host.ip(
        "link add eth0 up type veth peer name far",
        "link set far up",
        "addr add 192.168.77.11/24 dev eth0",
    )


@pytest.fixture
def overlays(host):  # noqa: ARG001  it works inside
    with closing(Overlays()) as made:
        yield made


@pytest.fixture
def node(overlays):
    """Both adapters that carry an overlay, in their order, behind the face of one."""
    with closing(Netlink()) as netlink:

        def observe():
            return overlays.observe() | netlink.observe()

        def apply(plan):
            take, make = Plan(remove=plan.remove), Plan(plan.add, plan.change)
            for part, adapters in ((take, (netlink, overlays)), (make, (overlays, netlink))):
                for adapter in adapters:
                    adapter.apply(part.only(adapter.kinds))

        yield SimpleNamespace(observe=observe, apply=apply, watch=netlink.watch, netlink=netlink)


@pytest.fixture
def full(node):
    """A node with two peers."""
    node.apply(diff((), ALL))
    return node


def run(host, line):
    host.run(*(line if line.startswith("bridge") else f"ip {line}").split())


def repair(node, want=ALL):
    """See drift, repair it, and see none any more; give the kinds of things it was in."""
    plan = diff(node.observe(), want)
    node.apply(plan)
    assert not diff(node.observe(), want)
    return {type(t) for t in (*plan.add, *plan.remove, *(new for _, new in plan.change))}


def refusals(adapter, plan):
    with pytest.raises(ExceptionGroup) as caught:
        adapter.apply(plan)
    return [str(error) for error in caught.value.exceptions]


def shown(host, *command):
    return json.loads(host.run(*command))


def everything(host):
    """Give what the kernel tells of links, routes and entries.

    Left out is what takes its time to settle: IPv6, and a carrier that comes after `link set up`.
    """
    commands = ("ip -d link", "ip -4 addr", "ip -4 route show table all", "ip -4 neigh")
    fdb = [line for line in host.run("bridge", "fdb").splitlines() if "dst" in line]
    shown = [host.run(*command.split()) for command in commands]
    return [re.sub(r",LOWER_UP|NO-CARRIER,| state \w+", "", text) for text in shown] + fdb


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
    check_host(overlays, [DEVICE, NEIGHBOUR, FDB, ROUTE], change)


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
        (f"link del {NAME}", {Vxlan, Neighbour, Fdb, PeerRoute, Address, Sysctl}),
        (f"link set {NAME} mtu 1300", {Vxlan}),
        (f"link set {NAME} address 02:00:00:00:00:01", {Vxlan, Neighbour}),
        (f"link set {NAME} group 0", {Vxlan}),
        (f"link set {NAME} type vxlan learning", {Vxlan}),
        (f"link set {NAME} type vxlan local 192.168.77.99", {Vxlan}),
        (f"link set {NAME} type vxlan dev far", {Vxlan}),
        (f"addr del 10.5.10.0/32 dev {NAME}", {Address, Neighbour, PeerRoute}),
        (f"addr add 10.5.99.0/32 dev {NAME}", {Address}),
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
    assert repair(full) == {Vxlan, Neighbour, Fdb, PeerRoute, Address, Sysctl}


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


def test_unreachable_route_of_the_lease_is_another_thing(full):
    lease = frozenset(plan_lease(Lease(NET, SUBNET, 1450, "etcd")))
    repair(full, ALL | lease)
    repair(full, lease)
    assert full.observe() == lease


def test_learned_and_passing_entries_are_not_ours(full, host):
    run(host, f"neigh add 10.5.9.0 lladdr 02:00:00:00:00:01 dev {NAME} nud reachable")
    run(host, f"bridge fdb add 02:00:00:00:00:01 dev {NAME} dst 192.168.77.9 self dynamic")
    assert full.observe() == ALL


def test_direct_route_and_host_gw(full):
    direct = wanted(PEERS, replace(OVERLAY, direct_routing=True))
    full.apply(diff(full.observe(), direct))
    assert full.observe() == direct
    assert not [t for t in direct if isinstance(t, Neighbour | Fdb)]
    host_gw = wanted([replace(p, backend="host-gw", mac=None) for p in PEERS], gateway())
    full.apply(diff(full.observe(), host_gw))
    assert full.observe() == host_gw
    assert {type(t) for t in host_gw} == {PeerRoute}


def gateway():
    return replace(OVERLAY, backend="host-gw")


def test_peer_that_comes_back_with_another_mac_and_address_leaves_nothing(full):
    changed = wanted([peer(24, 1), PEERS[1]])
    full.apply(diff(ALL, changed))
    assert full.observe() == changed


def test_leases_with_one_mac_share_an_entry(full):
    both = wanted([PEERS[0], peer(30, 24)])
    full.apply(diff(ALL, both))
    assert full.observe() == both
    one = wanted([peer(30, 24)])
    full.apply(diff(both, one))
    assert full.observe() == one
    assert FDB in one


def test_device_of_an_old_number_goes(full):
    want = wanted(PEERS, replace(OVERLAY, vni=7))
    full.apply(diff(ALL, want))
    assert full.observe() == want


def test_thousand_changes_leave_no_entry_over(node):
    chance = random.Random(5)  # noqa: S311
    peers, have = {}, wanted(())
    node.apply(diff((), have))
    for _ in range(1000):
        number = chance.randrange(11, 60)
        if number in peers and chance.random() < 0.4:
            del peers[number]
        else:
            peers[number] = peer(number, chance.randrange(12, 60))
        want = wanted(peers.values())
        node.apply(diff(have, want))
        have = want
    assert node.observe() == have
    node.apply(diff(have, wanted(())))
    assert node.observe() == wanted(())


NEAR, FAR = IPv4Address("192.168.77.9"), IPv4Address("172.31.0.1")


def route_by(via, number):
    dst = IPv4Network((int(NET[0]) + 16 * number, 28))
    return PeerRoute(dst, via, "eth0", onlink=False)


def test_each_refusal_of_a_long_batch_names_its_thing(overlays):
    """A gateway that no link reaches, in every third of more routes than go at once."""
    routes = [route_by(NEAR if i % 3 else FAR, i) for i in range(3 * AT_ONCE + 5)]
    said = refusals(overlays, Plan(add=tuple(routes)))
    bad = [route for route in routes if route.via == FAR]
    assert said == [f"cannot set up peerroute {b.dst}: Nexthop has invalid gateway" for b in bad]
    assert overlays.observe() == set(routes) - set(bad)
    overlays.apply(Plan(remove=tuple(routes)))
    assert overlays.observe() == frozenset()


def test_all_of_a_batch_may_be_refused(overlays):
    routes = tuple(route_by(FAR, i) for i in range(4 * AT_ONCE))
    assert len(refusals(overlays, Plan(add=routes))) == len(routes)


def test_the_other_adapter_does_not_take_peers_for_its_own(full):
    assert full.netlink.observe() == {ADDRESS, ACCEPT_RA}
    assert full.netlink.facts().onlink == ETH0.onlink


@pytest.mark.parametrize(
    "line",
    [
        f"link set {NAME} down",
        f"link del {NAME}",
        f"link set {NAME} mtu 1300",
        f"link set {NAME} address 02:00:00:00:00:01",
        "link del eth0",
        f"addr del 10.5.10.0/32 dev {NAME}",
        f"neigh del 10.5.24.0 dev {NAME}",
        f"bridge fdb del {FDB.mac} dev {NAME}",
        f"route del 10.5.24.0/24 {OURS}",
        "addr add 192.168.77.12/24 dev eth0",
        "addr del 192.168.77.11/24 dev eth0",
        "link set eth0 mtu 1400",
    ],
)
def test_drift_is_reported(full, host, line):
    with Listener(full) as news:
        news.after(host)
        run(host, line)
        news.wait("")


def test_uplink_that_comes_back_is_reported(full, host):
    run(host, "link set eth0 down")
    with Listener(full) as news:
        news.after(host)
        run(host, "link set eth0 up")
        news.wait("")


def test_thousands_of_peers_that_come_are_no_news(full, host):
    with Listener(full) as news:
        news.after(host)
        many = wanted([peer(number) for number in range(20, 250)])
        full.apply(diff(ALL, many))
        run(host, "neigh add 192.168.77.9 lladdr 02:00:00:00:00:01 dev eth0 nud stale")
        run(host, "neigh del 192.168.77.9 dev eth0")
        assert news.after(host) == frozenset()
    assert drops(host) == 0


@pytest.fixture
def interfaces(host):
    """A host with two uplinks and a default route by each."""
    host.ip(
        "link add eth1 mtu 9000 up type veth peer name far1",
        "link set far1 up",
        "addr add 169.254.3.4/16 dev eth1 scope link",
        "addr add 10.0.0.5/24 dev eth1 valid_lft 1000 preferred_lft 1000",
        "addr add 10.0.0.6/24 dev eth1",
        "addr add 10.0.0.7/24 dev eth1",
        "route add 10.9.0.0/16 dev eth1 scope link",
        "route add 10.8.0.0/16 via 10.0.0.1",
        "route add default via 192.168.77.1 metric 20",
        "route add default via 10.0.0.1 metric 10",
        f"route add 10.7.0.0/16 dev eth1 scope link {OURS}",
    )
    with closing(Underlay()) as made:
        yield made


ETH1 = External(
    "eth1",
    IPv4Address("10.0.0.6"),
    9000,
    tuple(map(IPv4Network, ("10.0.0.0/24", "10.9.0.0/16", "169.254.0.0/16"))),
)


@pytest.mark.parametrize(
    ("iface", "public_ip", "found"),
    [
        ("eth0", None, ETH0),
        ("eth1", None, ETH1),
        ("192.168.77.11", None, ETH0),
        ("10.0.0.5", None, replace(ETH1, ip=IPv4Address("10.0.0.5"))),
        ("eth1", "203.0.113.9", ETH1),
        (None, "192.168.77.11", ETH0),
        (None, "10.0.0.7", replace(ETH1, ip=IPv4Address("10.0.0.7"))),
        (None, None, ETH1),
        ("", None, ETH1),
    ],
)
def test_external_interface(interfaces, iface, public_ip, found):
    assert interfaces.external(iface, public_ip and IPv4Address(public_ip)) == found


@pytest.mark.parametrize(
    ("iface", "public_ip", "words"),
    [
        ("eth7", None, "FLANNELD_IFACE eth7 is no interface of this host"),
        ("10.1.1.1", None, "FLANNELD_IFACE 10.1.1.1 is on no interface of this host"),
        ("far", None, "interface far to the underlay has no IPv4 address"),
        (
            None,
            "203.0.113.9",
            "FLANNELD_PUBLIC_IP 203.0.113.9 is on no interface of this host; "
            "name the interface with FLANNELD_IFACE",
        ),
    ],
)
def test_no_external_interface(interfaces, iface, public_ip, words):
    with pytest.raises(Unavailable) as caught:
        interfaces.external(iface, public_ip and IPv4Address(public_ip))
    assert str(caught.value) == words


def test_no_default_route(host):  # noqa: ARG001
    with closing(Underlay()) as made, pytest.raises(Unavailable, match="no default route"):
        made.external(None, None)
