"""The nft table in a real kernel: what is applied is observed, drift is seen, packets obey."""

import dataclasses
import socket
import subprocess
import sys
import threading
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from driver import rules
from driver.errors import Conflict, HostError
from driver.firewall import PATH, Nft
from driver.model import Endpoint, Facts, Lease, Network, PortMapping
from driver.things import Element, Plan, Table, diff

pytestmark = pytest.mark.kernel

TABLE = Table(rules.TABLE_TEXT)
LEASE = Lease(IPv4Network("10.2.0.0/16"), IPv4Network("10.2.0.0/24"), 1450, "standalone")
LAN = "192.0.2.9"
HOST = "192.0.2.1"


def network(letter, gateway, internal=False):
    return Network(letter * 64, "pool", IPv4Interface(gateway), 1450, internal, True, "eth")


def endpoint(letter, on, ip, *ports):
    return Endpoint(letter * 64, on.id, IPv4Interface(ip), "", 0.0, ports=ports)


def port(host_port, target, proto="tcp", ip="0.0.0.0"):
    return PortMapping(proto, IPv4Address(ip), host_port, target)


A = network("a", "10.2.0.1/26")
B = network("b", "10.2.0.65/26")
INNER = network("c", "10.2.0.129/26", internal=True)
WEB = endpoint(
    "1",
    A,
    "10.2.0.2/26",
    port(8080, 80),
    port(8053, 53, "udp"),
    port(8081, 80, ip="127.0.0.1"),
    port(8082, 80, ip=HOST),
)
OTHER = endpoint("2", B, "10.2.0.66/26", port(9999, 99, "sctp"), port(8080, 81, "udp", HOST))


def wanted(*parts):
    return {t for part in parts for t in part if isinstance(t, Nft.kinds)}


WANTED = wanted(
    rules.plan_base(LEASE, Facts(uplinks=frozenset({"br0", "vmbr1"}), gates=frozenset({"nft"}))),
    *(rules.plan_network_rules(n) for n in (A, B, INNER)),
    *(rules.plan_ports(e) for e in (WEB, OTHER)),
)
ONE = Element("pub4_any", "tcp . 8080", "10.2.0.2 . 80", "1" * 64)


@pytest.fixture
def nft(host):  # noqa: ARG001  it is made inside
    with closing(Nft()) as made:
        yield made


@pytest.fixture
def full(nft):
    nft.apply(diff(nft.observe(), WANTED))
    return nft


def only(caught, kind):
    [error] = caught.value.exceptions
    assert type(error) is kind
    assert "\n" not in str(error)
    return str(error)


def handle(host):
    return host.run("nft", "-a", "list", "tables")


def test_nothing_at_first(nft):
    assert nft.observe() == frozenset()


def test_the_golden_table_loads(nft):
    nft.apply(Plan(add=(TABLE,)))
    assert nft.observe() == {TABLE}


def test_what_is_planned_is_observed_exactly(full):
    assert full.observe() == WANTED
    assert ONE in WANTED


def test_a_second_apply_changes_nothing(full, host):
    before = handle(host)
    full.apply(diff((), WANTED))
    full.apply(Plan(add=(ONE,)))
    assert full.observe() == WANTED
    assert handle(host) == before


def test_elements_come_and_go_alone(full):
    for element in WANTED - {TABLE}:
        full.apply(Plan(remove=(element,)))
        assert full.observe() == WANTED - {element}
        full.apply(Plan(remove=(element,)))
        full.apply(Plan(add=(element,)))
        assert full.observe() == WANTED


def test_all_of_it_goes(full, host):
    full.apply(diff(WANTED, ()))
    assert full.observe() == frozenset()
    assert host.run("nft", "list", "ruleset") == ""
    full.apply(diff(WANTED, ()))


def test_an_element_changes(full):
    for old in WANTED - {TABLE}:
        data = old.data and "10.2.0.3 . 7"
        new = dataclasses.replace(old, data=data, owner="9" * 64)
        full.apply(Plan(change=((old, new),)))
        assert full.observe() == WANTED - {old} | {new}
        full.apply(Plan(change=((old, new),)))
        full.apply(Plan(change=((new, old),)))
        assert full.observe() == WANTED


def test_many_adjacent_blocks_stay_apart(nft):
    blocks = {
        Element("lease4", f"10.2.{i}.{j}/26", owner=f"{i}") for i in range(9) for j in (0, 64)
    }
    single = {Element("over4", "10.9.0.1"), Element("over4", "10.9.0.2")}
    nft.apply(diff((), {TABLE, *blocks, *single}))
    assert nft.observe() == {TABLE, *blocks, *single}


def test_a_doubled_element_is_a_conflict_and_nothing_else_happens(full):
    thief = dataclasses.replace(ONE, data="10.2.0.3 . 80", owner="3" * 64)
    innocent = Element("pub4_any", "tcp . 1", "10.2.0.3 . 1", "3" * 64)
    gone = next(t for t in WANTED if isinstance(t, Element) and t.set == "pair")
    with pytest.raises(ExceptionGroup) as caught:
        full.apply(Plan(add=(innocent, thief), remove=(gone,)))
    message = only(caught, Conflict)
    assert "tcp . 8080" in message
    assert "111111111111" in message
    assert full.observe() == WANTED


def test_the_same_data_for_another_owner_is_a_conflict(full):
    with pytest.raises(ExceptionGroup) as caught:
        full.apply(Plan(add=(dataclasses.replace(ONE, owner="3" * 64),)))
    only(caught, Conflict)


def test_what_is_partly_so_is_completed(full):
    new = Element("pub4_any", "tcp . 1", "10.2.0.3 . 1", "3" * 64)
    absent = Element("pub4_any", "tcp . 2", "10.2.0.3 . 2", "3" * 64)
    full.apply(Plan(add=(ONE, new), remove=(absent,)))
    assert full.observe() == WANTED | {new}


def test_nonsense_is_refused_in_one_line(full):
    with pytest.raises(ExceptionGroup) as caught:
        full.apply(Plan(add=(Element("pub4_any", "tcp . http . 3", "10.2.0.3 . 1"),)))
    assert "nftables refused" in only(caught, HostError)
    assert full.observe() == WANTED


def test_without_the_table_removal_succeeds_and_adding_does_not(full, host):
    host.run("nft", "flush", "ruleset")
    full.apply(Plan(remove=(ONE,)))
    with pytest.raises(ExceptionGroup) as caught:
        full.apply(Plan(add=(ONE,)))
    assert "gone" in only(caught, HostError)


@pytest.mark.parametrize(
    "command",
    [
        "insert rule inet docker_flannel forward accept",
        "add rule inet docker_flannel forward accept",
        "flush chain inet docker_flannel publish",
        "flush table inet docker_flannel",
        "add chain inet docker_flannel foreign",
        "add set inet docker_flannel foreign { type ipv4_addr; }",
        "add table inet docker_flannel { flags dormant; }",
        "add chain inet docker_flannel forward { policy drop; }",
        "delete table inet docker_flannel",
        "flush ruleset",
    ],
)
def test_a_changed_skeleton_is_replaced_with_everything(full, host, command):
    host.run("nft", command)
    assert full.observe() == frozenset()
    full.apply(diff(full.observe(), WANTED))
    assert full.observe() == WANTED


def test_changed_elements_are_seen_one_by_one(full, host):
    for command in (
        "delete element inet docker_flannel pub4_any { tcp . 8080 }",
        "add element inet docker_flannel internal { eth0 }",
        "add element inet docker_flannel over4 { 10.9.0.1-10.9.0.6 }",
        "add element inet docker_flannel pub4_any { udp . 1 : 10.9.0.1 . 2 }",
    ):
        host.run("nft", command)
    plan = diff(full.observe(), WANTED)
    assert plan.add == (ONE,)
    assert {(t.set, t.at) for t in plan.remove} == {
        ("internal", '"eth0"'),
        ("over4", "10.9.0.1-10.9.0.6"),
        ("pub4_any", "udp . 1"),
    }
    full.apply(plan)
    assert full.observe() == WANTED


@pytest.mark.usefixtures("full")
def test_a_table_of_an_earlier_process_is_replaced(host):
    host.run("nft", "add element inet docker_flannel internal { eth0 }")
    with closing(Nft()) as later:
        assert later.observe() == frozenset()
        later.apply(diff(later.observe(), WANTED))
        assert later.observe() == WANTED


def test_another_text_keeps_the_elements(full):
    text = Table(rules.TABLE_TEXT + "chain more { }\n")
    full.apply(Plan(change=((TABLE, text),), remove=(ONE,)))
    assert full.observe() == WANTED - {TABLE, ONE} | {text}


def test_counters_and_other_tables_are_no_drift(full, host):
    host.run("nft", "add table inet foreign")
    host.run("nft", "reset", "counters")
    host.ip("link add fl-x up type veth peer name y", "addr add 10.0.0.1/24 dev fl-x")
    assert full.observe() == WANTED


def test_observing_bears_others_at_work(full):
    stray = Element("internal", '"eth9"')
    replaced = f"add table {PATH}; delete table {PATH}; table {PATH} {{ {rules.TABLE_TEXT} }}"
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for text in (
                f"add element {PATH} internal {{ eth9 }}",
                "add table inet foreign; add chain inet foreign x",
                f"delete element {PATH} internal {{ eth9 }}",
                "delete table inet foreign",
            ):
                subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        for _ in range(10):
            subprocess.run(["nft", "-f", "-"], input=replaced, text=True, check=True)

    thread = threading.Thread(target=work)
    thread.start()
    seen = {full.observe() for _ in range(100)}
    stop.set()
    while thread.is_alive():
        assert TABLE in full.observe()
    thread.join()
    assert seen <= {frozenset(WANTED), frozenset(WANTED | {stray})}
    assert full.observe() == {TABLE}


def test_names_of_protocols_need_no_file():
    """In a mount namespace whose /etc/protocols is empty, as in small container images."""
    script = (
        "import subprocess, sys; sys.path[:0] = sys.argv[1:]\n"
        "subprocess.run(['mount', '--bind', '/dev/null', '/etc/protocols'], check=True)\n"
        "import test_firewall as t\n"
        "nft = t.Nft(); nft.apply(t.diff((), t.WANTED)); assert nft.observe() == t.WANTED"
    )
    here = Path(__file__).parent
    paths = [str(here.parents[1]), str(here)]
    subprocess.run(["unshare", "-m", sys.executable, "-c", script, *paths], check=True)


def test_any_thread_may_call(full):
    def work():
        full.apply(Plan(remove=(ONE,)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert full.observe() == WANTED - {ONE}


# Packets. Bridges of A, B and INNER with a container each (two on A), a LAN, the overlay.


@pytest.fixture
def site(lab, full):  # noqa: ARG001  the table is there
    for n in (A, B, INNER):
        lab.bridge(n.bridge, str(n.gateway))
    lab.web, lab.mate, lab.other, lab.inner = (
        lab.container(n.bridge, ip, str(n.gateway.ip))
        for n, ip in (
            (A, "10.2.0.2/26"),
            (A, "10.2.0.3/26"),
            (B, "10.2.0.66/26"),
            (INNER, "10.2.0.130/26"),
        )
    )
    lab.lan = lab.neighbour("eth0", f"{HOST}/24", f"{LAN}/24")
    lab.lan.ip(f"route add 10.2.0.0/16 via {HOST}")
    lab.peer = lab.neighbour("flannel.1", "10.2.0.0/32", "10.2.9.2/24")
    lab.host.ip("route add 10.2.9.0/24 dev flannel.1")
    lab.peer.ip("route add 10.2.0.0/24 via 10.2.0.0 dev eth0 onlink")
    return lab


def test_a_published_port_is_reached_from_everywhere(site):
    with site.web.listen(80) as tcp, site.web.listen(53, udp=True) as udp:
        for server, number in ((tcp, 8080), (udp, 8053)):
            assert site.lan.reach(server, HOST, number) == LAN
            assert site.host.reach(server, HOST, number) == HOST
            assert site.host.reach(server, "127.0.0.1", number) == "10.2.0.1"
            assert site.web.reach(server, HOST, number) == "10.2.0.1"
            assert site.web.reach(server, "10.2.0.1", number) == "10.2.0.1"
            assert site.mate.reach(server, HOST, number) == "10.2.0.1"
            assert site.other.reach(server, HOST, number) == "10.2.0.66"


def test_without_the_hairpin_flag_a_container_cannot_reach_itself(site):
    site.host.run("bridge", "link", "set", "dev", "veth0", "hairpin", "off")
    with site.web.listen(80) as server:
        assert site.web.cannot_reach(server, HOST, 8080)
        assert site.mate.reach(server, HOST, 8080) == "10.2.0.1"


def test_one_host_address_publishes_only_there(site):
    with site.web.listen(80) as server:
        assert site.lan.reach(server, HOST, 8082) == LAN
        assert site.host.reach(server, "127.0.0.1", 8081) == "10.2.0.1"
        with pytest.raises(ConnectionRefusedError):
            site.lan.reach(server, HOST, 8081)
        with pytest.raises(ConnectionRefusedError):
            site.host.reach(server, "127.0.0.1", 8082)


def test_the_specific_address_wins_over_any(site):
    site.host.ip("addr add 192.0.2.2/24 dev eth0")
    with site.web.listen(80) as web, site.mate.listen(80) as mate:
        with closing(Nft()) as nft:
            nft.apply(
                Plan(add=(Element("pub4_ip", "192.0.2.2 . tcp . 8080", "10.2.0.3 . 80", "x"),))
            )
        assert site.lan.reach(mate, "192.0.2.2", 8080) == LAN
        assert site.lan.reach(web, HOST, 8080) == LAN


def test_the_lan_reaches_nothing_that_is_not_published(site):
    with site.web.listen(80) as tcp, site.web.listen(53, udp=True) as udp:
        assert site.mate.reach(tcp, "10.2.0.2", 80) == "10.2.0.3"
        assert site.host.reach(tcp, "10.2.0.2", 80) == "10.2.0.1"
        assert site.lan.cannot_reach(tcp, "10.2.0.2", 80)
        assert site.lan.cannot_reach(udp, "10.2.0.2", 53)
        site.host.run("nft", "flush", "ruleset")
        assert site.lan.reach(tcp, "10.2.0.2", 80) == LAN


def test_networks_do_not_meet(site):
    with site.web.listen(80) as web, site.other.listen(80) as other, site.inner.listen(80) as inner:
        assert site.web.cannot_reach(other, "10.2.0.66", 80)
        assert site.other.cannot_reach(web, "10.2.0.2", 80)
        assert site.web.cannot_reach(inner, "10.2.0.130", 80)
        assert site.inner.cannot_reach(web, "10.2.0.2", 80)


def test_out_to_the_lan_with_the_hosts_address(site):
    with site.lan.listen(80) as tcp, site.lan.listen(53, udp=True) as udp:
        assert site.web.reach(tcp, LAN, 80) == HOST
        assert site.web.reach(udp, LAN, 53) == HOST
        assert site.inner.cannot_reach(tcp, LAN, 80)
        assert site.inner.cannot_reach(udp, LAN, 53)


def test_the_overlay_keeps_addresses(site):
    with site.web.listen(80) as web, site.inner.listen(80) as inner, site.peer.listen(80) as peer:
        for inside, server, ip in (
            (site.web, web, "10.2.0.2"),
            (site.inner, inner, "10.2.0.130"),
        ):
            assert inside.reach(peer, "10.2.9.2", 80) == ip
            assert site.peer.reach(server, ip, 80) == "10.2.9.2"


def test_somebody_elses_bridge_is_no_way_out_unless_it_is_an_uplink(site, full):
    site.bridge("br9", "198.51.100.1/24")
    foreign = site.container("br9", "198.51.100.2/24", "198.51.100.1")
    with foreign.listen(80) as server, site.web.listen(80) as web:
        assert site.web.cannot_reach(server, "198.51.100.2", 80)
        assert foreign.cannot_reach(web, "10.2.0.2", 80)
        assert foreign.reach(web, HOST, 8080) == "198.51.100.2"
        full.apply(Plan(add=(Element("uplinks", '"br9"'),)))
        assert site.web.reach(server, "198.51.100.2", 80) == "198.51.100.1"


def use_127_from(inside, gateway):
    """Let a namespace send to 127.0.0.1 as if it were elsewhere."""
    inside.ip("addr del 127.0.0.1/8 dev lo", f"route add 127.0.0.1 via {gateway} dev eth0")
    inside.sysctl("ipv4/conf/eth0/route_localnet", "1")


def test_containers_do_not_reach_the_hosts_loopback(site):
    use_127_from(site.web, "10.2.0.1")
    with site.host.listen(631, ip="127.0.0.1") as server:
        assert site.web.cannot_reach(server, "127.0.0.1", 631)
        site.host.run("nft", "flush", "ruleset")
        assert site.web.reach(server, "127.0.0.1", 631) == "10.2.0.2"  # CVE-2020-8558


def test_the_lan_does_not_reach_a_port_of_the_loopback(site):
    use_127_from(site.lan, HOST)
    with site.web.listen(80) as server:
        assert site.lan.cannot_reach(server, "127.0.0.1", 8081)
        site.host.run("nft", "flush", "chain", PATH.split()[0], PATH.split()[1], "nat_pre")
        site.host.run("nft", f"add rule {PATH} nat_pre fib daddr type local jump publish")
        assert site.lan.reach(server, "127.0.0.1", 8081) == LAN


def test_a_connection_outlives_the_tables_replacement(site):
    with site.web.listen(80) as server, socket.create_connection((HOST, 8080), 5) as client:
        connection, _ = server.accept()
        with connection, closing(Nft()) as later:
            later.apply(diff((), WANTED))
            client.send(b"still")
            assert connection.recv(10) == b"still"
