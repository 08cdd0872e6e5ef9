"""The guard of 127.0.0.0/8: made, mended, beside others' filters, and against real packets."""

import socket
import struct
from contextlib import closing, suppress
from pathlib import Path

import pytest

from driver.host.loopback import LoopbackGuards
from driver.host.netlink.constants import GROUP
from driver.model.objects import LoopbackGuard, Plan, diff
from tests.kernel.adapters import refusals
from tests.kernel.firewalls import flush
from tests.kernel.frames import mac_of
from tests.kernel.sample import HOST, A

pytestmark = pytest.mark.kernel

ROUTED, CLOSED = LoopbackGuard(A.bridge, True), LoopbackGuard(A.bridge, False)
SETTING = f"ipv4/conf/{A.bridge}/route_localnet"
QDISC = f"tc qdisc {{}} dev {A.bridge} clsact"
SHOW = f"tc filter show dev {A.bridge} ingress"


@pytest.fixture
def localhosts(host):  # noqa: ARG001  it works inside
    with closing(LoopbackGuards()) as made:
        yield made


@pytest.fixture
def bridge(lab):
    """A bridge of ours with a container, without the setting."""
    lab.bridge(A.bridge, "10.2.0.1/26")
    lab.host.ip(f"link set {A.bridge} group {GROUP}")
    lab.host.sysctl(SETTING, "0")
    return A.bridge


@pytest.fixture
def guarded(bridge, localhosts):  # noqa: ARG001  it is there
    localhosts.apply(Plan(add=(ROUTED,)))
    assert localhosts.observe() == {ROUTED}
    return localhosts


def setting(host):
    with host:
        return Path("/proc/sys/net", SETTING).read_text().strip()


def run(host, command):
    return host.run(*command.split())


def test_the_setting_is_on_only_behind_a_guard(bridge, localhosts, host):  # noqa: ARG001
    host.sysctl(SETTING, "1")
    assert localhosts.observe() == frozenset()
    localhosts.apply(diff(localhosts.observe(), {CLOSED}))
    assert (localhosts.observe(), setting(host)) == ({CLOSED}, "0")
    for before, after in ((CLOSED, ROUTED), (ROUTED, CLOSED)):
        for _ in range(2):
            localhosts.apply(Plan(change=((before, after),)))
            assert localhosts.observe() == {after}
    assert run(host, SHOW).count("handle") == 1
    localhosts.apply(Plan(add=(ROUTED,)))
    localhosts.apply(Plan(remove=(ROUTED,)))
    assert setting(host) == "0"


def test_a_link_that_is_missing_or_foreign_is_named_and_left_alone(localhosts, host):
    assert refusals(localhosts, Plan(add=(ROUTED,))) == [f"link {A.bridge} is missing"]
    host.ip(f"link add {A.bridge} type bridge")
    assert refusals(localhosts, Plan(add=(ROUTED,))) == [f"link {A.bridge} is missing"]
    localhosts.apply(Plan(remove=(ROUTED,)))
    assert (localhosts.observe(), run(host, SHOW), setting(host)) == (frozenset(), "", "0")


OTHER = "bytecode '1,6 0 0 0'"
DAMAGE = [
    QDISC.format("del"),
    f"tc filter del dev {A.bridge} ingress",
    f"tc filter replace dev {A.bridge} ingress pref 1 protocol all handle {GROUP} bpf {OTHER} da",
]


@pytest.mark.parametrize("command", DAMAGE)
def test_a_guard_that_is_gone_or_another_is_seen_at_once_and_mended(guarded, host, command):
    assert not guarded.disturbed(), "its own doing does not count"
    host.run("sh", "-c", command)
    assert guarded.disturbed()
    assert guarded.observe() == frozenset()
    guarded.apply(diff(guarded.observe(), {ROUTED}))
    assert guarded.observe() == {ROUTED}
    assert not guarded.disturbed()
    assert run(host, SHOW).count("handle") == 1


@pytest.mark.parametrize(
    ("first", "name", "other"),
    [
        (ROUTED, "route_localnet", "0"),
        (CLOSED, "route_localnet", "1"),
        (ROUTED, "accept_source_route", "1"),
    ],
)
def test_a_changed_setting_is_seen_at_once_and_mended(guarded, host, first, name, other):
    guarded.apply(Plan(add=(first,)))
    host.sysctl(f"ipv4/conf/{A.bridge}/{name}", other)
    assert guarded.disturbed()
    assert guarded.observe() != {first}
    guarded.apply(diff(guarded.observe(), {first}))
    assert guarded.observe() == {first}
    assert not guarded.disturbed()
    host.ip(f"link del {A.bridge}")
    assert not guarded.disturbed(), "others tell of links"


@pytest.mark.parametrize("kind", ["clsact", "ingress"])
def test_filters_of_others_stay_and_the_guard_stands_beside_them(bridge, localhosts, host, kind):
    theirs = f"tc filter add dev {bridge} ingress pref"
    host.run("sh", "-c", f"tc qdisc add dev {bridge} {kind}")
    run(host, f"{theirs} 1 protocol ip u32 match ip dst 192.0.2.77/32")
    run(host, f"{theirs} 3 protocol ip u32 match ip dst 192.0.2.78/32")
    before = run(host, SHOW)
    localhosts.apply(Plan(add=(ROUTED,)))
    assert localhosts.observe() == {ROUTED}
    shown = run(host, SHOW)
    assert "pref 2 bpf" in shown
    assert set(before.splitlines()) <= set(shown.splitlines())
    assert kind in run(host, f"tc qdisc show dev {bridge}")


def test_where_the_guard_is_refused_nothing_is_routed(bridge, localhosts, host):
    """Filters that several links share are others'; no other bridge is any the worse for it."""
    host.run("sh", "-c", f"tc qdisc add dev {bridge} ingress_block 21 clsact")
    host.sysctl(SETTING, "1")
    [said] = refusals(localhosts, Plan(add=(ROUTED,)))
    assert said.startswith(f"cannot guard 127.0.0.0/8 on {bridge}: ")
    assert setting(host) == "0"
    assert localhosts.able


def test_a_kernel_that_has_no_such_filter_routes_nothing(bridge, host):  # noqa: ARG001
    host.sysctl(SETTING, "1")
    with closing(LoopbackGuards("absent")) as localhosts:
        localhosts.apply(Plan(add=(ROUTED,)))
        assert not localhosts.able
        assert localhosts.observe() == {CLOSED}
        assert setting(host) == "0"


# Packets. UDP to a server on the host's 127.0.0.1, in every dress the kernel takes off.

PORT, DATA, IPV4 = 631, b"attack", b"\x08\x00"
VLAN_0, QINQ_0 = b"\x81\x00\x00\x00", b"\x88\xa8\x00\x00"
LSRR = bytes([1, 131, 7, 4, 127, 0, 0, 1])  # source route by way of 127.0.0.1, with a NOP before


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def packet(to, source="10.2.0.2", options=b"", data=DATA, place=0):
    """An IPv4 packet; `place` is a fragment's, and 0x2000 says that more of them come."""
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        0,
        20 + len(options) + len(data),
        77,
        place,
        64,
        17,
        0,
        socket.inet_aton(source),
        socket.inet_aton(to),
    )
    head += options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + data


UDP = struct.pack("!HHHH", 5000, PORT, 8 + len(DATA), 0) + DATA
BIG = struct.pack("!HHHH", 5000, PORT, 8 + 1200, 0) + bytes(1200)
PLAIN = packet("127.0.0.1", data=UDP)
DRESSES = {
    "plain": [IPV4 + PLAIN],
    "another loopback address": [IPV4 + packet("127.8.9.1", data=UDP)],
    "broadcast": [IPV4 + PLAIN],
    "options": [IPV4 + packet("127.0.0.1", options=b"\1" * 40, data=UDP)],
    "fragments": [
        IPV4 + packet("127.0.0.1", data=UDP[:8], place=0x2000),
        IPV4 + packet("127.0.0.1", data=UDP[8:], place=1),
    ],
    "big": [IPV4 + packet("127.0.0.1", data=BIG)],
    "VLAN 0": [VLAN_0 + IPV4 + PLAIN],
    "802.1ad VLAN 0": [QINQ_0 + IPV4 + PLAIN],
    "VLAN 0 twice": [VLAN_0 * 2 + IPV4 + PLAIN],
    "802.1ad and VLAN 0": [QINQ_0 + VLAN_0 + IPV4 + PLAIN],
    "VLAN 0 four times": [VLAN_0 * 4 + IPV4 + PLAIN],
    "from 127.0.0.1": [IPV4 + packet(HOST, source="127.0.0.1", data=UDP)],
    "source route": [IPV4 + packet("10.2.0.1", options=LSRR, data=UDP)],
}


class Attack:
    """A container with raw sockets on a bridge, and servers on the host."""

    def __init__(self, lab):
        self.host, self.inside = lab.host, lab.container(A.bridge, "10.2.0.2/26", "10.2.0.1")
        self.servers = [self.host.listen(PORT, True, ip) for ip in ("127.0.0.1", "127.8.9.1", HOST)]
        self.gateway = bytes.fromhex(mac_of(self.host, A.bridge).replace(":", ""))

    def arrives(self, dress):
        """Send the frames of a dress and a welcome packet; whether more than that came."""
        to = b"\xff" * 6 if dress == "broadcast" else self.gateway
        with self.inside, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            own = raw.getsockname()[4]
            for frame in DRESSES[dress]:
                raw.send(to + own + frame)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"last", (HOST, PORT))
        *closed, open_ = self.servers
        found = []
        while (got := open_.recv(2000)) != b"last":
            found.append(got)
        for server in closed:
            server.setblocking(False)
            with suppress(BlockingIOError):
                found.append(server.recv(2000))
        return bool(found)


@pytest.fixture
def attack(lab, bridge):  # noqa: ARG001  it is there
    lab.host.ip(f"addr add {HOST}/32 dev lo")
    for name in ("accept_source_route", "accept_local"):
        lab.host.sysctl(f"ipv4/conf/all/{name}", "1")
    lab.host.sysctl("ipv4/conf/all/rp_filter", "0")
    made = Attack(lab)
    yield made
    for server in made.servers:
        server.close()


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_no_packet_for_or_from_127_comes_in(attack, localhosts, bridged):
    """With no firewall at all: without the guard they come, so the test can fail."""
    attack.host.sysctl("bridge/bridge-nf-call-iptables", bridged)
    attack.host.sysctl(SETTING, "1")
    open_ = {dress for dress in DRESSES if attack.arrives(dress)}
    localhosts.apply(Plan(add=(ROUTED,)))
    assert {dress for dress in DRESSES if attack.arrives(dress)} == set()
    assert open_ == set(DRESSES)


@pytest.mark.parametrize("bridged", ["0", "1"])
@pytest.mark.usefixtures("loaded")
def test_localhost_leads_to_a_container_through_the_guard(lab, guarded, bridged):
    lab.host.sysctl("bridge/bridge-nf-call-iptables", bridged)
    web = lab.container(A.bridge, "10.2.0.2/26", "10.2.0.1")
    with web.listen(80) as tcp, web.listen(53, udp=True) as udp:
        for server, port in ((tcp, 8080), (tcp, 8081), (udp, 8053)):
            assert lab.host.reach(server, "127.0.0.1", port) == "10.2.0.1"
        flush(lab.host)
        assert guarded.observe() == {ROUTED}
