"""The netlink adapter on a real kernel, each test in a network namespace of its own."""

import json
import threading
import time
from contextlib import closing
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from driver.bridge import mac_for, plan_endpoint, plan_lease, plan_network
from driver.events import DOOMED, GROUP, PROTOCOL
from driver.kernel import BATCH, Netlink
from driver.model import Endpoint, Lease, Network, PortMapping, replace
from driver.things import Address, Bridge, Plan, Route, Sysctl, Veth, diff
from tests.unit.contract import check_failure, check_host

pytestmark = pytest.mark.kernel

LIMIT_S = 10.0
LEASE = Lease(IPv4Network("10.2.0.0/16"), IPv4Network("10.2.0.0/20"), 1450, "standalone")
PORTS = (PortMapping("tcp", IPv4Interface("0.0.0.0").ip, 8080, 80),)


def network(number):
    gateway = IPv4Interface(f"10.2.{number}.1/24")
    return Network(f"{number:02x}" * 32, f"p{number}", gateway, 1450, False, True, "eth")


def endpoint(net, number, ports=()):
    ip = IPv4Interface(f"10.2.{net.gateway.ip.packed[2]}.{number + 1}/24")
    object_id = f"{net.id[:2]}{number:04x}".ljust(64, "e")
    return Endpoint(object_id, net.id, ip, mac_for(ip.ip), 0.0, ports=ports)


N1, N2 = network(1), network(2)
E1, E2, E3 = endpoint(N1, 1), endpoint(N1, 2, PORTS), endpoint(N2, 1)
NETWORKS = (*plan_lease(LEASE), *plan_network(N1), *plan_network(N2))
V1, V2, V3 = (next(plan_endpoint(e, n)) for e, n in ((E1, N1), (E2, N1), (E3, N2)))
ALL = frozenset((*NETWORKS, V1, V2, V3))
BRIDGE, ADDRESS, ROUTE_LOCALNET, ACCEPT_RA = plan_network(N1)
FOREIGN = "exists and is not this plugin's"


@pytest.fixture
def netlink(host):  # noqa: ARG001  it works inside
    with closing(Netlink()) as made:
        yield made


@pytest.fixture
def full(netlink):
    """The adapter of a host that carries two networks and three endpoints."""
    netlink.apply(diff((), ALL))
    return netlink


@pytest.fixture
def news(netlink):
    """Gives a function that waits for names to be reported, and all names so far."""
    with Listener(netlink) as listener:
        yield listener


class Listener:
    """Runs `watch` in a thread. A link that comes and goes tells that all before was read."""

    def __init__(self, netlink):
        self._netlink, self._stop, self._names = netlink, threading.Event(), []
        self._said = threading.Condition()
        self._thread = threading.Thread(target=netlink.watch, args=(self._changed, self._stop))

    def _changed(self, names):
        with self._said:
            self._names.append(names)
            self._said.notify_all()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def wait(self, name):
        with self._said:
            assert self._said.wait_for(lambda: name in self._so_far(), LIMIT_S), self._names

    def _so_far(self):
        return frozenset().union(*self._names)

    def after(self, host):
        """Give what was reported, once all that has happened is read; and forget it."""
        while not self._so_far() & {"flhmarker"}:  # the thread may not listen yet
            host.ip(
                f"link add flhmarker group {GROUP} up type veth peer name marker",
                "link del flhmarker",
            )
            with self._said:
                self._said.wait_for(lambda: "flhmarker" in self._so_far(), 0.2)
        with self._said:
            names = self._so_far() - {"flhmarker"}
            self._names.clear()
        return names


def eventually(true):
    limit = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < limit, "did not come true"
        time.sleep(0.01)


def links(host):
    return {link["ifname"] for link in json.loads(host.run("ip", "-j", "link")) if "ifname" in link}


def refusals(netlink, plan):
    with pytest.raises(ExceptionGroup) as caught:
        netlink.apply(plan)
    return [str(error) for error in caught.value.exceptions]


def repair(netlink, want=ALL):
    """See drift, repair it, and see none any more; give what the drift was."""
    plan = diff(netlink.observe(), want)
    netlink.apply(plan)
    assert not diff(netlink.observe(), want)
    return plan


def test_keeps_the_contract(netlink):
    things = [BRIDGE, V1, V2, ADDRESS, ROUTE_LOCALNET, ACCEPT_RA, *plan_lease(LEASE)]
    check_host(netlink, things, (V1, replace(V1, hairpin=True)))
    check_host(netlink, things, (BRIDGE, replace(BRIDGE, mtu=1460, mac="02:66:00:00:00:01")))
    absent = replace(ADDRESS, link="fl-absent")
    check_failure(netlink, [BRIDGE], absent, "fl-absent is missing")


def test_makes_what_is_planned(full):
    assert full.observe() == ALL
    assert not diff(full.observe(), ALL)
    full.apply(diff((), ALL))
    assert full.observe() == ALL
    ends = {e.host_end for e in (E1, E2, E3)} | {e.container_end for e in (E1, E2, E3)}
    assert full.links() == ends | {N1.bridge, N2.bridge}
    full.apply(diff(ALL, ()))
    eventually(lambda: not full.observe() and not full.links())


def test_container_end_is_as_planned(full, host):
    assert full.links()
    shown = json.loads(host.run("ip", "-j", "link", "show", E1.container_end))[0]
    assert (shown["address"], shown["mtu"]) == (E1.mac, N1.mtu)


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (f"link set {E1.host_end} down", {Veth}),
        (f"link set {E1.host_end} mtu 1300", {Veth}),
        (f"link set {E1.host_end} nomaster", {Veth}),
        (f"link set {E1.host_end} master {N2.bridge}", {Veth}),
        (f"link set {E2.host_end} type bridge_slave hairpin off", {Veth}),
        (f"link set {E1.host_end} alias x", {Veth}),
        (f"link set {E1.host_end} group 0", {Veth}),
        (f"link set {E1.host_end} group {DOOMED}", {Veth}),
        (f"link del {E1.host_end}", {Veth}),
        (f"link set {N1.bridge} down", {Bridge}),
        (f"link set {N1.bridge} mtu 1300", {Bridge}),
        (f"link set {N1.bridge} address 02:66:00:00:00:01", {Bridge}),
        (f"link set {N1.bridge} alias x", {Bridge}),
        (f"link del {N1.bridge}", {Bridge, Veth, Address, Sysctl}),
        (f"addr del {N1.gateway} dev {N1.bridge}", {Address}),
        (f"addr add 10.9.9.9/32 dev {N1.bridge}", {Address}),
        (f"route del unreachable {LEASE.subnet}", {Route}),
        (f"route add unreachable 10.9.0.0/16 proto {PROTOCOL} metric 91000", {Route}),
    ],
)
def test_drift_is_seen_and_repaired(full, host, line, kinds):
    host.ip(line)
    touched = repair(full)
    assert {type(t) for t in touched.add + touched.remove} | {
        type(new) for _, new in touched.change
    } == kinds


def test_setting_is_repaired(full, host):
    host.sysctl(f"ipv4/conf/{N1.bridge}/route_localnet", "0")
    host.sysctl(f"ipv6/conf/{N1.bridge}/accept_ra", "2")
    assert {new for _, new in repair(full).change} == {ROUTE_LOCALNET, ACCEPT_RA}


def test_bridge_without_ipv6_is_whole(full, host):
    """Below 1280 bytes the kernel takes IPv6 off a link, and its settings' folder away."""
    small = {replace(t, mtu=1200) if isinstance(t, Bridge | Veth) else t for t in ALL}
    full.apply(diff(ALL, small))
    with host:
        assert not Path("/proc/sys/net/ipv6/conf", N1.bridge).exists()
    assert full.observe() == small
    full.apply(Plan(add=(ACCEPT_RA,)))


def test_bridge_keeps_its_mtu_without_ports(full):
    full.apply(Plan(remove=(V1, V2)))
    eventually(lambda: E1.host_end not in full.links())
    assert not diff(full.observe(), ALL - {V1, V2})


def test_leftovers_are_removed_even_if_down(full, host):
    host.ip(f"link set {E1.host_end} down", f"link set {N1.bridge} down")
    full.apply(diff(full.observe(), ()))
    eventually(lambda: links(host) == {"lo"})


def test_container_end_may_move(full, host, namespace):
    sandbox = namespace()
    host.ip(f"link set {E1.container_end} netns {sandbox.path}")
    sandbox.ip(f"link set {E1.container_end} name eth0", "link set eth0 up")
    assert full.observe() == ALL
    assert E1.container_end not in full.links()
    full.apply(Plan(change=((V1, replace(V1, hairpin=True)),)))
    assert not diff(full.observe(), ALL - {V1} | {replace(V1, hairpin=True)})
    full.apply(Plan(remove=(V1,)))
    eventually(lambda: links(sandbox) == {"lo"})


def test_namespace_died(full, host, news):
    news.after(host)
    sandbox = type(host)()
    host.ip(f"link set {E1.container_end} netns {sandbox.path}")
    sandbox.close()
    news.wait(E1.host_end)
    assert diff(full.observe(), ALL) == Plan(add=(V1,))
    full.apply(Plan(remove=(V1,)))
    assert full.observe() == ALL - {V1}


def test_comes_back_under_the_same_name(full, host, namespace):
    for _ in range(5):
        sandbox = namespace()
        host.ip(f"link set {E1.container_end} netns {sandbox.path}")
        full.apply(Plan(remove=(V1,)))
        assert E1.host_end not in full.links()
        assert full.observe() == ALL - {V1}
        full.apply(Plan(add=(V1,)))
        assert full.observe() == ALL
        assert E1.container_end in full.links()


def test_many_go_at_once(full, host):
    many = [next(plan_endpoint(endpoint(N1, i), N1)) for i in range(10, 10 + 2 * BATCH)]
    full.apply(Plan(add=tuple(many)))
    assert full.observe() == ALL | set(many)
    full.apply(Plan(remove=tuple(many)))
    assert full.observe() == ALL
    full.apply(diff(ALL, ()))  # the bridge waits for its veths
    assert N1.bridge not in links(host)
    eventually(lambda: links(host) == {"lo"})


def test_closing_finishes_removals(host):
    with closing(Netlink()) as netlink:
        netlink.apply(diff((), ALL))
        netlink.apply(Plan(remove=(V3, V2, V1)))
    assert links(host) == {"lo", N1.bridge, N2.bridge}


def test_foreign_links_are_left_alone(netlink, host):
    host.ip(
        f"link add {N1.bridge} type bridge",
        f"link add {E3.host_end} type veth peer name other",
        f"link add {N2.bridge} group {GROUP} type veth peer name another",
    )
    before = host.run("ip", "-d", "addr")
    assert netlink.observe() == frozenset()
    assert netlink.links() == frozenset()
    said = refusals(netlink, Plan(add=(BRIDGE, V1, ADDRESS, ROUTE_LOCALNET, ACCEPT_RA)))
    assert said == [f"link {N1.bridge} {FOREIGN}; rename or delete it"] * 5
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
    ours = Route(LEASE.subnet)
    host.ip(
        f"route add unreachable {LEASE.subnet} metric 5",
        f"route add unreachable 10.8.0.0/16 proto {PROTOCOL} table 100",
        "route add unreachable 10.7.0.0/16 metric 91000",
    )
    before = host.run("ip", "route", "show", "table", "all", "type", "unreachable")
    assert netlink.observe() == frozenset()
    netlink.apply(Plan(add=(ours,)))
    assert netlink.observe() == {ours}
    netlink.apply(Plan(remove=(ours, Route(IPv4Network("10.7.0.0/16")))))
    assert host.run("ip", "route", "show", "table", "all", "type", "unreachable") == before
    taken = Route(IPv4Network("10.7.0.0/16"))
    assert refusals(netlink, Plan(add=(taken,))) == [
        f"route {taken.dst} {FOREIGN}; delete it",
    ]


def test_failures_name_the_thing_and_the_reason(netlink):
    bad = replace(BRIDGE, mtu=70000)
    said = refusals(netlink, Plan(add=(bad, ADDRESS)))
    assert said == [f"cannot set up bridge {bad.name}: mtu greater than device maximum"]
    assert ADDRESS in netlink.observe()
    assert refusals(netlink, Plan(add=(V3,))) == [f"link {N2.bridge} is missing"]


def test_facts_of_an_empty_host(netlink, host):
    found = netlink.facts()
    assert (found.uplinks, found.onlink, found.gates) == (frozenset(), (), frozenset())
    assert found.uplink_mtu is None
    host.sysctl("ipv4/ip_forward", "0")
    assert not netlink.facts().forwarding
    host.sysctl("ipv4/ip_forward", "1")
    assert netlink.facts().forwarding


def test_facts_leave_out_ours(full):
    found = full.facts()
    assert (found.uplinks, found.onlink, found.uplink_mtu) == (frozenset(), (), None)


def test_uplinks_are_bridges_that_lead_out(full, host):
    host.ip(
        *(f"link add {name} up type bridge" for name in ("br0", "br1", "br2", "br3", "docker0")),
        "link add veth0 up master docker0 type veth peer name veth1",
        "link add vxlan0 master br1 type vxlan id 5 dstport 4789",
        "addr add 192.168.7.1/24 dev br0",
        "addr add 192.168.8.1/24 dev br2",
        "addr add 192.168.9.1/24 dev br3",
        "addr add 172.17.0.1/16 dev docker0",
        "route add default via 192.168.7.254",
        "route add 10.99.0.0/16 nexthop via 192.168.8.254 nexthop via 192.168.9.254",
    )
    assert full.facts().uplinks == {"br0", "br1", "br2", "br3"}
    host.ip("route del default", "route del 10.99.0.0/16", "link set vxlan0 nomaster")
    assert full.facts().uplinks == frozenset()


def test_onlink_is_what_the_host_reaches_or_owns(full, host):
    host.ip(
        "link add veth0 mtu 1400 up type veth peer name veth1",
        "addr add 192.168.7.1/24 dev veth0",
        "addr add 10.0.0.1 peer 10.0.0.2/32 dev veth0",
        "addr add 172.31.255.1/32 dev lo",
        "route add 10.50.0.0/16 dev veth0 scope link",
        "route add 10.60.0.0/16 via 192.168.7.254",
        "route add 10.70.0.0/16 dev veth0 scope link table 100",
        "route add default via 192.168.7.254 metric 10",
        f"route add default dev {N1.bridge} scope link metric 20",
    )
    found = full.facts()
    assert found.uplink_mtu == 1400
    assert [str(net) for net in found.onlink] == [
        "10.0.0.1/32",
        "10.0.0.2/32",
        "10.50.0.0/16",
        "172.31.255.1/32",
        "192.168.7.0/24",
    ]
    host.ip(f"route add default dev {N1.bridge} scope link metric 5")
    assert full.facts().uplink_mtu == N1.mtu


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"link set {E1.host_end} down", E1.host_end),
        (f"link set {E1.host_end} mtu 1300", E1.host_end),
        (f"link set {E1.host_end} nomaster", E1.host_end),
        (f"link set {E1.host_end} master {N2.bridge}", E1.host_end),
        (f"link del {E1.container_end}", E1.host_end),
        (f"link set {N1.bridge} down", N1.bridge),
        (f"link del {N1.bridge}", N1.bridge),
        (f"addr del {N1.gateway} dev {N1.bridge}", N1.bridge),
        (f"route del unreachable {LEASE.subnet}", ""),
        ("link add br0 type bridge", ""),
        (f"route add default dev {N1.bridge}", ""),
    ],
)
def test_drift_is_reported(full, host, news, line, name):
    assert full.observe() == ALL
    news.after(host)
    host.ip(line)
    news.wait(name)


def test_what_is_foreign_is_reported_when_it_goes(netlink, host, news):  # noqa: ARG001
    host.ip("link add br0 up type bridge", "addr add 192.168.7.1/24 dev br0")
    host.ip("route add default via 192.168.7.254")
    for line in ("route del default", "link del br0"):
        news.after(host)
        host.ip(line)
        news.wait("")


def test_own_doings_are_no_news(netlink, host, news, namespace):
    netlink.apply(diff((), NETWORKS))
    news.after(host)
    for veth in (V1, V2, V3):
        netlink.apply(Plan(add=(veth,)))
    sandbox = namespace()
    host.ip(f"link set {E1.container_end} netns {sandbox.path}")
    sandbox.ip(f"link set {E1.container_end} name eth0", "link set eth0 up")
    sandbox.ip(f"link set eth0 down name {E1.container_end}")
    netlink.apply(Plan(change=((V1, replace(V1, hairpin=True)),)))
    netlink.apply(Plan(remove=(V3, V2, V1)))
    eventually(lambda: not links(host) & {E1.host_end, E2.host_end, E3.host_end})
    netlink.apply(Plan(remove=(BRIDGE,)))
    host.ip("link add veth0 up type veth peer name veth1", "link del veth0")
    assert news.after(host) == frozenset()


def drops(host):
    """Count what the namespace's netlink sockets could not take."""
    with host:
        lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()
    return sum(int(line.split()[8]) for line in lines[1:])


def test_lost_news_are_reported(full, host):
    """The listener sleeps in its callback while more happens than its socket can hold."""
    names, entered, go, stop = set(), threading.Event(), threading.Event(), threading.Event()

    def changed(news):
        names.update(news)
        entered.set()
        assert go.wait(60)

    thread = threading.Thread(target=full.watch, args=(changed, stop))
    thread.start()
    try:
        while not entered.wait(0.1):
            host.ip("link add br0 type bridge", "link del br0")
        while not drops(host):
            for _ in range(100):
                full.apply(Plan(change=((V1, V1),)))
        host.ip(f"link del {E1.host_end}")
        names.clear()
        go.set()
        eventually(lambda: "" in names)
        host.ip(f"link del {E3.host_end}")
        eventually(lambda: E3.host_end in names)
    finally:
        go.set()
        stop.set()
        thread.join(LIMIT_S)


def test_watch_stops_soon(netlink):
    stop = threading.Event()
    thread = threading.Thread(target=netlink.watch, args=(lambda _: None, stop))
    thread.start()
    stop.set()
    thread.join(2)
    assert not thread.is_alive()


def test_reading_while_writing(full):
    """A pass looks at the host while a call changes it."""
    done, failures = threading.Event(), []

    def look():
        while not done.is_set():
            try:
                assert full.observe() >= ALL - {V1}
                full.facts()
                full.links()
            except Exception as error:  # noqa: BLE001
                failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        full.apply(Plan(remove=(V1,)))
        full.apply(Plan(add=(V1,)))
    done.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert failures == []
