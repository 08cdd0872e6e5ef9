"""What is for the overlay's Network but for no peer: packets, on each backend of the firewall."""

import socket
from contextlib import closing
from ipaddress import IPv4Network

import pytest

from driver.core.strays import plan_route
from driver.host.links import Links
from driver.model.facts import Facts
from driver.model.firewall import NearPrefix
from driver.model.objects import Plan, UnreachableRoute
from tests.kernel.namespaces import QUIET_S
from tests.kernel.overlays.sample import ETH0, NET, OVERLAY, PEERS, SUBNET
from tests.kernel.sample import HOST, LAN, A

pytestmark = pytest.mark.kernel

FAR = "10.2.9.2"  # a container of another host, or whoever says so
UDP = socket.SOCK_DGRAM


@pytest.fixture
def site(lab, loaded):  # noqa: ARG001  the rules are there
    """A container, a peer behind the overlay, and a LAN whose gateway would take anything."""
    lab.bridge(A.bridge, str(A.gateway))
    lab.web = lab.container(A.bridge, "10.2.0.2/26", str(A.gateway.ip))
    lab.lan = lab.neighbour("eth0", f"{HOST}/24", f"{LAN}/24")
    lab.lan.ip(f"addr add {FAR}/32 dev lo", f"route add 10.2.0.0/24 via {HOST}")
    lab.peer = lab.neighbour("flannel.1", "10.2.0.0/32", f"{FAR}/24")
    lab.peer.ip("route add 10.2.0.0/24 via 10.2.0.0 dev eth0 onlink")
    lab.host.ip("route add 10.2.9.0/24 dev flannel.1", f"route add default via {LAN}")
    return lab


def test_what_a_peer_had_does_not_leave_by_the_default_route(site):
    with site.peer.listen(53, udp=True) as peer, site.lan.listen(53, udp=True) as lan:
        with site.web:
            client = socket.socket(type=UDP)
        with client:
            client.connect((FAR, 53))
            client.send(b"one")
            assert peer.recvfrom(9)[0] == b"one"
            peer.sendto(b"two", ("10.2.0.2", client.getsockname()[1]))
            client.settimeout(10)
            assert client.recv(9) == b"two", "the flow is established"
            site.host.ip("route del 10.2.9.0/24")
            client.send(b"three")
            lan.settimeout(QUIET_S)
            with pytest.raises(TimeoutError):
                print(lan.recvfrom(9))  # noqa: T201
        with site.lan.listen(80) as server:
            assert site.web.cannot_reach(server, FAR, 80), "a new one"


def test_what_is_on_a_link_of_the_host_is_reached(site, loaded):
    site.host.ip("addr add 10.2.60.1/24 dev eth0")
    site.lan.ip("addr add 10.2.60.9/24 dev eth0")
    with site.lan.listen(80) as server:
        assert site.web.cannot_reach(server, "10.2.60.9", 80)
        loaded.apply(Plan(add=(NearPrefix(IPv4Network("10.2.60.0/24")),)))
        assert site.web.reach(server, "10.2.60.9", 80) == "10.2.0.2"


def test_who_asks_for_a_published_port_is_answered(site):
    site.lan.ip("addr add 10.2.50.9/32 dev lo", f"route add {HOST}/32 dev eth0 src 10.2.50.9")
    with site.web.listen(80) as server:
        assert site.lan.reach(server, HOST, 8080) == "10.2.50.9"


@pytest.mark.usefixtures("host")
def test_the_host_itself_reaches_peers_and_links_and_nothing_else(lab):
    lan = lab.neighbour("eth0", f"{HOST}/24", f"{LAN}/24")
    near, peer, stray = "10.5.70.9", str(PEERS[0].subnet[2]), "10.5.99.2"
    lan.ip(
        f"addr add {peer}/32 dev lo", f"addr add {stray}/32 dev lo", f"addr add {near}/24 dev eth0"
    )
    lab.host.ip(
        "addr add 10.5.70.1/24 dev eth0",
        f"route add default via {LAN}",
        f"route add {PEERS[0].subnet} via {LAN} proto 91 metric 91000",
    )
    with closing(Links()) as netlink, lan.listen(80) as server:
        assert lab.host.reach(server, stray, 80)
        [route] = plan_route(OVERLAY, SUBNET, PEERS, Facts(external=ETH0))
        assert isinstance(route, UnreachableRoute)
        assert route.dst == NET
        netlink.apply(Plan(add=(route,)))
        assert netlink.observe() == {route}
        for there in (near, peer, LAN):
            assert lab.host.reach(server, there, 80)
        with pytest.raises(OSError, match=r"unreachable|No route"):
            lab.host.reach(server, stray, 80)
