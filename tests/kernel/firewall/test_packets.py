"""What the firewall does to packets, from every side, in a real kernel, on each backend."""

import socket
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.host.firewall.iptables import IptablesFirewall
from driver.host.firewall.nft import PATH
from driver.model.firewall import (
    DirectLink,
    DockerMasquerade,
    ForeignBridge,
    PeerAddress,
    PeerPrefix,
    PortMap,
    SourcePrefix,
    Uplink,
)
from driver.model.objects import Plan, diff
from tests.kernel.firewalls import flush
from tests.kernel.sample import HOST, INNER, LAN, WANTED, A, B

pytestmark = pytest.mark.kernel


# Packets. Bridges of A, B and INNER with a container each (two on A), a LAN, the overlay.


@pytest.fixture
def site(lab, loaded):  # noqa: ARG001  the rules are there
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


def test_the_specific_address_wins_over_any(site, loaded):
    site.host.ip("addr add 192.0.2.2/24 dev eth0")
    with site.web.listen(80) as web, site.mate.listen(80) as mate:
        loaded.apply(
            Plan(
                add=(
                    PortMap(
                        "tcp", IPv4Address("192.0.2.2"), 8080, IPv4Address("10.2.0.3"), 80, "x"
                    ),
                )
            )
        )
        assert site.lan.reach(mate, "192.0.2.2", 8080) == LAN
        assert site.lan.reach(web, HOST, 8080) == LAN


def test_the_lan_reaches_nothing_that_is_not_published(site):
    with site.web.listen(80) as tcp, site.web.listen(53, udp=True) as udp:
        assert site.mate.reach(tcp, "10.2.0.2", 80) == "10.2.0.3"
        assert site.host.reach(tcp, "10.2.0.2", 80) == "10.2.0.1"
        assert site.lan.cannot_reach(tcp, "10.2.0.2", 80)
        assert site.lan.cannot_reach(udp, "10.2.0.2", 53)
        flush(site.host)
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
    with site.web.listen(80) as web, site.peer.listen(80) as peer:
        assert site.web.reach(peer, "10.2.9.2", 80) == "10.2.0.2"
        assert site.peer.reach(web, "10.2.0.2", 80) == "10.2.9.2"


@pytest.mark.parametrize("udp", [False, True])
def test_an_internal_network_is_closed_to_the_overlay(site, udp):
    inner, peer = site.inner.listen(80, udp), site.peer.listen(80, udp)
    with inner, peer:
        assert site.inner.cannot_reach(peer, "10.2.9.2", 80)
        assert site.peer.cannot_reach(inner, "10.2.0.130", 80)
        assert site.host.reach(inner, "10.2.0.130", 80) == "10.2.0.129"
        for sender, ip in ((site.peer, "10.2.0.130"), (site.inner, "10.2.9.2")):
            with pytest.raises(AssertionError, match="ping"):
                sender.run("ping", "-c", "1", "-W", "1", ip)
        flush(site.host)
        site.peer.run("ping", "-c", "1", "-W", "10", "10.2.0.130")
        assert site.inner.reach(peer, "10.2.9.2", 80) == "10.2.0.130"
        assert site.peer.reach(inner, "10.2.0.130", 80) == "10.2.9.2"


def test_somebody_elses_bridge_is_no_way_out_unless_it_is_an_uplink(site, loaded):
    site.bridge("br9", "198.51.100.1/24")
    if isinstance(loaded, IptablesFirewall):  # nft can tell a bridge by itself
        loaded.apply(Plan(add=(ForeignBridge("br9"),)))
    foreign = site.container("br9", "198.51.100.2/24", "198.51.100.1")
    with foreign.listen(80) as server, site.web.listen(80) as web:
        assert site.web.cannot_reach(server, "198.51.100.2", 80)
        assert foreign.cannot_reach(web, "10.2.0.2", 80)
        assert foreign.reach(web, HOST, 8080) == "198.51.100.2"
        loaded.apply(Plan(add=(Uplink("br9"),)))
        assert site.web.reach(server, "198.51.100.2", 80) == "198.51.100.1"


def test_peers_come_in_without_encapsulation_if_told_to(site, loaded):
    prefix = site.neighbour("eth1", "198.51.100.1/24", "198.51.100.9/24")
    prefix.ip("addr add 10.2.8.2/32 dev lo", "route add 10.2.0.0/24 via 198.51.100.1 src 10.2.8.2")
    site.host.ip("route add 10.2.8.0/24 via 198.51.100.9")
    by_host = ("198.51.100.9", "10.2.8.2")

    def reached(server, ip):
        """From which of the peer's addresses a server is reached."""
        found = set()
        for source in by_host:
            prefix.ip(f"route replace 10.2.0.0/24 via 198.51.100.1 src {source}")
            found |= set() if prefix.cannot_reach(server, ip, 80) else {source}
        return found

    with site.web.listen(80) as web, site.inner.listen(80) as inner, prefix.listen(80) as peer:
        assert reached(web, "10.2.0.2") == reached(inner, "10.2.0.130") == set()
        assert site.inner.cannot_reach(peer, "10.2.8.2", 80)
        loaded.apply(Plan(add=(DirectLink("eth1"), PeerPrefix(IPv4Network("10.2.9.0/24")))))
        assert reached(web, "10.2.0.2") == set()
        loaded.apply(Plan(add=(PeerPrefix(IPv4Network("10.2.8.0/24")),)))
        assert reached(web, "10.2.0.2") == {"10.2.8.2"}
        assert site.web.reach(peer, "10.2.8.2", 80) == "10.2.0.2"
        loaded.apply(Plan(add=(PeerAddress(IPv4Address("198.51.100.9")),)))
        assert reached(web, "10.2.0.2") == set(by_host)
        assert site.inner.cannot_reach(peer, "10.2.8.2", 80)
        assert reached(inner, "10.2.0.130") == set()
        assert site.lan.cannot_reach(web, "10.2.0.2", 80)


def test_a_subnet_of_docker_s_never_leaves_the_host(site, loaded):
    site.host.ip(f"addr add 172.18.0.1/24 dev {A.bridge}")
    site.web.ip("addr add 172.18.0.2/24 dev eth0", "route replace default via 172.18.0.1")
    subnet = DockerMasquerade(IPv4Network("172.18.0.0/24"))
    loaded.apply(Plan(add=(subnet, SourcePrefix(IPv4Network("172.18.0.0/24"), A.bridge))))
    with site.lan.listen(80) as lan, site.web.listen(80) as web:
        assert site.web.reach(lan, LAN, 80) == HOST
        assert site.web.reach(web, HOST, 8080) in ("172.18.0.1", "10.2.0.1")


def use_127_from(inside, gateway):
    """Let a namespace send to 127.0.0.1 as if it were elsewhere."""
    inside.ip("addr del 127.0.0.1/8 dev lo", f"route add 127.0.0.1 via {gateway} dev eth0")
    inside.sysctl("ipv4/conf/eth0/route_localnet", "1")


def test_containers_do_not_reach_the_hosts_loopback(site):
    use_127_from(site.web, "10.2.0.1")
    with site.host.listen(631, ip="127.0.0.1") as server:
        assert site.web.cannot_reach(server, "127.0.0.1", 631)
        flush(site.host)
        assert site.web.reach(server, "127.0.0.1", 631) == "10.2.0.2"  # CVE-2020-8558


UNGUARDED = {
    "nft": [
        f"nft flush chain {PATH} nat_pre",
        f"nft add rule {PATH} nat_pre fib daddr type local jump publish",
    ],
    "iptables-nft": ["iptables-nft -t nat -D DKFLANNEL-PRE 1"],
    "iptables-legacy": ["iptables-legacy -t nat -D DKFLANNEL-PRE 1"],
}


def test_the_lan_does_not_reach_a_port_of_the_loopback(site, loaded):
    use_127_from(site.lan, HOST)
    with site.web.listen(80) as server:
        assert site.lan.cannot_reach(server, "127.0.0.1", 8081)
        for command in UNGUARDED[loaded.name]:
            site.host.run(*command.split())
        assert site.lan.reach(server, "127.0.0.1", 8081) == LAN


def test_a_connection_outlives_the_rules_replacement(site, make_firewall):
    with site.web.listen(80) as server, socket.create_connection((HOST, 8080), 5) as client:
        connection, _ = server.accept()
        with connection, closing(make_firewall()) as later:
            later.apply(diff((), WANTED))
            client.send(b"still")
            assert connection.recv(10) == b"still"


def test_a_network_that_is_not_known_keeps_what_it_has(site):
    """As when the state was lost and nothing tells what the network is."""
    site.bridge("fl-unknown", "10.2.3.1/26")
    lost = site.container("fl-unknown", "10.2.3.2/26", "10.2.3.1")
    site.peer.ip("route add 10.2.3.0/26 via 10.2.0.0 dev eth0 onlink")
    with site.host.listen(80) as here, site.peer.listen(80) as peer, lost.listen(80) as server:
        assert lost.reach(here, "10.2.3.1", 80) == "10.2.3.2"
        assert lost.reach(peer, "10.2.9.2", 80) == "10.2.3.2"
        assert site.peer.reach(server, "10.2.3.2", 80) == "10.2.9.2"
        assert site.web.cannot_reach(server, "10.2.3.2", 80)
