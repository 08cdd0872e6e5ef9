"""Packets between containers of several hosts, by the overlay that the adapters make.

Two hosts share a link of the underlay; the third is behind a router, which is the test's own
namespace. What the first host sends and gets is recorded at the router's end of its link.
"""

import itertools
import socket
import struct
from contextlib import ExitStack, closing, contextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

import pytest

from driver.host.links import Links
from driver.host.overlay import OverlayAdapter
from driver.host.underlay import external
from driver.model.objects import Plan, diff
from driver.model.records import Overlay, Peer, Vtep, replace
from driver.vxlan import container_mtu, plan_peers, plan_vtep, problems

pytestmark = pytest.mark.kernel

NETWORK = IPv4Network("10.5.0.0/16")
VXLAN = Overlay(NETWORK, 24, NETWORK[256], NETWORK[255 * 256], "vxlan")
DIRECT = replace(VXLAN, direct_routing=True)
HOST_GW = replace(VXLAN, backend="host-gw")
PORT, PORTS = 7000, itertools.count(7001)
MTU = 1450
ALL_PROTOCOLS = 3


class Seen(NamedTuple):
    """A packet of the overlay on the underlay. `port` and `vni` are 0 without encapsulation."""

    outer: str
    port: int
    vni: int
    source: str
    destination: str


class Record:
    """What passes an interface, from `__enter__` on."""

    def __init__(self, link):
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        self._socket.bind((link, 0))
        self.fragments = 0

    def close(self):
        self._socket.close()

    def packets(self):
        """Return the overlay's packets of which something was recorded since the last time."""
        found: set[Seen] = set()
        while True:
            try:
                frame = self._socket.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            if frame[12:14] == b"\x08\x00":
                self._read(frame[14:], found)

    def _read(self, packet, found):
        source, destination = addresses(packet)
        self.fragments += bool(struct.unpack_from("!H", packet, 6)[0] & 0x3FFF)
        if IPv4Address(destination) in NETWORK:
            found.add(Seen("", 0, 0, source, destination))
        elif packet[9] == socket.IPPROTO_UDP:
            port = struct.unpack_from("!H", packet, 22)[0]
            flags, vni = struct.unpack_from("!II", packet, 28)
            assert flags == 0x08000000
            found.add(Seen(destination, port, vni >> 8, *addresses(packet[50:])))


def addresses(packet):
    return socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])


class Node:
    """A flannel host with one container. `number` is its subnet's and its public address's."""

    def __init__(self, lab, number, made):
        self.number, self.namespace, self.lab = number, lab.host, lab
        with self.namespace:
            self.overlays, self.netlink = OverlayAdapter(), Links()
            for adapter in (self.overlays, self.netlink):
                made.enter_context(closing(adapter))
            self.external = external(self.netlink.surroundings(), None, None)
        self.vtep = Vtep(self.external.ip, f"fe:2d:0c:00:00:{number:02x}")
        self.subnet = IPv4Network((int(NETWORK[0]) + 256 * number, 24))
        self.gateway, self.address = str(self.subnet[1]), str(self.subnet[2])
        lab.bridge("fl-b", f"{self.gateway}/24")
        self.container = lab.container("fl-b", f"{self.address}/24", self.gateway)
        self.container.ip(f"link set eth0 mtu {MTU}")

    def as_peer(self, overlay):
        mac = self.vtep.mac if overlay.backend == "vxlan" else None
        return Peer(self.subnet, self.vtep.public_ip, overlay.backend, mac)

    def carry(self, overlay, peers):
        """Bring the host to what the leases ask for, as a pass does."""
        about = overlay, peers, self.vtep, self.external
        want = [*plan_vtep(overlay, self.subnet, self.vtep, self.external), *plan_peers(*about)]
        with self.namespace:
            plan = diff(self.overlays.observe() | self.netlink.observe(), want)
            for part, adapters in (
                (Plan(remove=plan.remove), (self.netlink, self.overlays)),
                (Plan(plan.add, plan.change), (self.overlays, self.netlink)),
            ):
                for adapter in adapters:
                    adapter.apply(part.only(adapter.kinds))
        return list(problems(*about))


@pytest.fixture
def nodes(lab, namespace):
    """Hosts 1 and 2 on 192.168.77.0/24, host 3 on 192.168.78.0/24, the router between them."""
    router = lab.host
    router.ip(
        "link add br0 type bridge",
        "addr add 192.168.77.254/24 dev br0",
        "link set br0 up",
    )
    with ExitStack() as made:
        found = []
        for number, net in ((1, 77), (2, 77), (3, 78)):
            own = namespace()
            router.ip(f"link add up{number} up type veth peer name eth0 netns {own.path}")
            where = "addr add 192.168.78.254/24 dev" if net == 78 else "link set master br0 dev"
            router.ip(f"{where} up{number}")
            own.ip(
                f"addr add 192.168.{net}.{number}/24 dev eth0",
                "link set eth0 up",
                f"route add default via 192.168.{net}.254",
            )
            found.append(Node(type(lab)(own, namespace), number, made))
        yield found


@pytest.fixture
def record(nodes):  # noqa: ARG001  it makes the link
    with closing(Record("up1")) as made:
        yield made


def connect(nodes, overlay):
    """Make all hosts know each other; give what they say they cannot do."""
    peers = {node.number: node.as_peer(overlay) for node in nodes}
    said = []
    for node in nodes:
        said += node.carry(overlay, [p for number, p in peers.items() if number != node.number])
    return said


def both_ways(one, other):
    return {(one, other), (other, one)}


def ends(packets):
    return {(packet.source, packet.destination) for packet in packets}


def ping(container, destination, size, *options):
    """Send one packet of so many bytes in all that must not be cut in pieces."""
    command = "ping", "-c", "1", "-W", "5", "-M", "do", "-s", str(size - 28), *options, destination
    return container.run(*command)


@contextmanager
def refused():
    with pytest.raises(AssertionError, match="ping"):
        yield


def talk(one, other):
    """Send TCP, UDP and ICMP from one host's container to another's, which sees the true source."""
    for udp in (False, True):
        port = next(PORTS)
        with closing(other.container.listen(port, udp)) as server:
            assert one.container.reach(server, other.address, port) == one.address
    ping(one.container, other.address, 100)


@pytest.mark.parametrize(("vni", "port"), [(1, 8472), (77, 4789)])
def test_containers_of_three_hosts_talk_by_vxlan(nodes, record, vni, port):
    first, second, third = nodes
    assert connect(nodes, replace(VXLAN, vni=vni, port=port)) == []
    for one, other in ((first, second), (second, first), (first, third), (third, second)):
        talk(one, other)
    seen = record.packets()
    assert {(packet.vni, packet.port) for packet in seen} == {(vni, port)}
    assert ends(seen) == both_ways(first.address, second.address) | both_ways(
        first.address, third.address
    )
    assert {p.outer for p in seen if p.destination == third.address} == {"192.168.78.3"}


def test_host_reaches_far_containers_from_its_vtep(nodes):
    first, second, _ = nodes
    connect(nodes, VXLAN)
    with closing(second.container.listen(PORT)) as server:
        assert first.namespace.reach(server, second.address, PORT) == str(first.subnet[0])
    with closing(second.namespace.listen(PORT)) as server:
        first.container.reach(server, str(second.subnet[0]), PORT)


def test_a_full_packet_passes_in_one_piece(nodes, record):
    first, second, _ = nodes
    connect(nodes, VXLAN)
    assert container_mtu(VXLAN, first.external) == MTU
    ping(first.container, second.address, MTU)
    with refused():
        ping(first.container, second.address, MTU + 1)
    first.container.ip("link set eth0 mtu 1500")
    with refused():
        ping(first.container, second.address, MTU + 1)
    ping(first.container, second.address, MTU)
    assert record.packets()
    assert record.fragments == 0


def test_peers_on_the_link_are_routed_directly(nodes, record):
    first, second, third = nodes
    assert connect(nodes, DIRECT) == []
    for one, other in ((first, second), (second, first), (first, third), (third, second)):
        talk(one, other)
    by_vni = {(packet.vni, *ends([packet])) for packet in record.packets()}
    assert by_vni == {
        *((0, pair) for pair in both_ways(first.address, second.address)),
        *((1, pair) for pair in both_ways(first.address, third.address)),
    }


def test_host_gw_takes_no_room_and_needs_one_link(nodes, record):
    first, second, third = nodes
    assert connect(nodes, HOST_GW) == [
        f"peer {two.subnet} is not on the link of eth0, as host-gw needs it"
        for two in (third, third, first, second)
    ]
    talk(first, second)
    first.container.ip("link set eth0 mtu 1500")
    second.container.ip("link set eth0 mtu 1500")
    assert container_mtu(HOST_GW, first.external) == 1500
    ping(first.container, second.address, 1500)
    assert {(packet.outer, packet.vni) for packet in record.packets()} == {("", 0)}


def test_one_overlay_after_the_other(nodes):
    """A changed configuration leaves nothing of the old one that would be in the way."""
    first, second, _ = nodes
    for overlay in (VXLAN, DIRECT, VXLAN, HOST_GW, replace(VXLAN, vni=9), VXLAN):
        connect(nodes, overlay)
        talk(first, second)


def test_peer_comes_and_goes(nodes):
    first, second, _ = nodes
    with closing(second.container.listen(PORT)) as server:
        connect(nodes, VXLAN)
        assert first.container.reach(server, second.address, PORT)
        first.carry(VXLAN, [])
        assert first.container.cannot_reach(server, second.address, PORT)
        first.carry(VXLAN, [second.as_peer(VXLAN)])
        assert first.container.reach(server, second.address, PORT)


def test_peer_changes_mac_and_address(nodes):
    first, second, third = nodes
    connect(nodes, VXLAN)
    peers = [first.as_peer(VXLAN), third.as_peer(VXLAN)]
    second.vtep = replace(second.vtep, mac="fe:2d:0c:00:00:99")
    second.carry(VXLAN, peers)
    with closing(second.container.listen(PORT)) as server:
        assert first.container.cannot_reach(server, second.address, PORT)
        first.carry(VXLAN, [second.as_peer(VXLAN), third.as_peer(VXLAN)])
        assert first.container.reach(server, second.address, PORT)
    second.namespace.ip("addr add 192.168.77.22/24 dev eth0", "addr del 192.168.77.2/24 dev eth0")
    second.namespace.ip(
        "addr add 192.168.77.22/24 dev eth0", "route add default via 192.168.77.254"
    )
    moved = IPv4Address("192.168.77.22")
    second.vtep = replace(second.vtep, public_ip=moved)
    second.external = replace(second.external, ip=moved)
    second.carry(VXLAN, peers)
    first.carry(VXLAN, [second.as_peer(VXLAN), third.as_peer(VXLAN)])
    talk(first, second)
    talk(second, first)
