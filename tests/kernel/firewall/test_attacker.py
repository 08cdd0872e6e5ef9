"""What a container with NET_ADMIN and NET_RAW sends arrives nowhere it should not, per backend.

That each packet is well made is proved by the same packet arriving where it may, or after the
rules are gone.
"""

import socket
import struct
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.model import firewall as rules
from driver.model.objects import Plan
from tests.kernel.firewall.attack import DOCKER, PEER, PORT, SECRET, arrived, forged
from tests.kernel.firewalls import flush
from tests.kernel.frames import END, Ear, mac_of, send, send_raw, udp
from tests.kernel.sample import HOST, LAN, A, B

pytestmark = pytest.mark.kernel

DIRECT = rules.DirectLink("eth0"), rules.PeerPrefix(IPv4Network("10.2.8.0/24"))

GATEWAYS = {"web": "10.2.0.1", "inner": "10.2.0.129", "docker": DOCKER}


@pytest.mark.parametrize("attacker", GATEWAYS)
def test_no_container_forges_frames_of_the_overlay(stage, attacker):
    sender, places = getattr(stage, attacker), (GATEWAYS[attacker], HOST, "10.2.0.65", LAN)
    stage.host.run("nft", "-f", "-", text=LED_THERE)
    if attacker == "inner":  # it has no other route, and with NET_ADMIN it makes one
        stage.inner.ip("route replace default via 10.2.0.129")
    for target in ("10.2.0.66", "10.2.0.130"):
        for place in places:
            send(sender, place, PORT, forged(stage, target))
            send(sender, place, 9999, forged(stage, target))
    assert arrived(stage) == set()
    # a peer may, and the host itself
    send(stage.lan, HOST, PORT, forged(stage, "10.2.0.66"))
    send(stage.host, LAN, PORT, SECRET)
    assert arrived(stage) == {"other", "lan"}
    flush(stage.host)
    send(sender, GATEWAYS[attacker], PORT, forged(stage, "10.2.0.130"))
    assert "inner" in arrived(stage)


LED_THERE = f"""
table ip led {{
    chain there {{
        type nat hook prerouting priority -90;
        udp dport 9999 redirect to :{PORT}
    }}
}}
"""


def test_what_is_no_frame_of_this_hosts_overlay_is_let_alone(stage):
    """Containers may have an overlay of their own, with the same port, on one bridge."""
    with stage.mate.listen(PORT, udp=True) as server:
        stage.host.sysctl("bridge/bridge-nf-call-iptables", "1")
        assert stage.web.reach(server, "10.2.0.3", PORT) == "10.2.0.2"


def test_the_overlays_own_bridge_is_let_alone(stage):
    """Machines on a bridge of the host may be peers."""
    stage.firewall.apply(Plan(add=(rules.Carrier("docker0"),)))
    send(stage.docker, DOCKER, PORT, forged(stage, "10.2.0.66"))
    assert "other" in arrived(stage)


def lie(lab, source, target, ports=(7, 7)):
    """Send from A by its gateway with somebody else's address."""
    raw = udp(source, target, ports[1], SECRET, ports[0])
    send_raw(lab.web, "eth0", mac_of(lab.host, A.bridge), raw)


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_no_container_takes_part_in_another_networks_flow(stage, bridged):
    stage.host.sysctl("bridge/bridge-nf-call-iptables", bridged)
    pair = stage.container(B.bridge, "10.2.0.67/26", "10.2.0.65")
    with stage.other.listen(7000, udp=True) as server, pair.listen(7002, udp=True) as near:
        with stage.lan:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.bind((PEER, 7001))
            client.sendto(b"question", ("10.2.0.66", 7000))
            server.recv(100)
            server.sendto(b"answer", (PEER, 7001))
            client.settimeout(10)
            client.recv(100)
        assert stage.other.reach(near, "10.2.0.67", 7002) == "10.2.0.66"
        arrived(stage)
        lie(stage, PEER, "10.2.0.66", (7001, 7000))
        lie(stage, "10.2.0.66", PEER, (7000, 7001))
        lie(stage, "10.2.0.67", "10.2.0.66", (7002, 7000))
        assert arrived(stage) == set()
        flush(stage.host)
        lie(stage, PEER, "10.2.0.66", (7001, 7000))
        lie(stage, "10.2.0.66", PEER, (7000, 7001))
        assert arrived(stage) == {"other", "lan"}


def test_no_container_sends_with_an_address_of_others(stage):
    with stage.host.listen(7, udp=True) as local:
        local.settimeout(0)
        for target in (PEER, LAN, HOST, "10.2.0.1", "10.2.0.65"):
            for source in ("10.2.7.7", "8.8.8.8", "10.2.0.67", LAN, HOST, "0.0.0.0"):
                lie(stage, source, target)
        assert arrived(stage) == set()
        with pytest.raises(BlockingIOError):
            local.recv(100)
        for target in (PEER, LAN):
            lie(stage, "10.2.0.2", target)
            assert arrived(stage) == {"lan"}, target
        stage.firewall.apply(Plan(add=(rules.AnySource(A.bridge),)))
        for source, target in (("8.8.8.8", LAN), ("10.2.7.7", PEER)):
            lie(stage, source, target)
            assert arrived(stage) == {"lan"}, source


def test_what_stays_on_a_bridge_is_let_alone(stage):
    """With br_netfilter the host sees it, and it may have any source: a floating address, DHCP."""
    stage.host.sysctl("bridge/bridge-nf-call-iptables", "1")
    mac = mac_of(stage.mate, "eth0")
    for source, target, to in (
        ("192.168.5.5", "10.2.0.3", mac),
        ("0.0.0.0", "255.255.255.255", "ff:ff:ff:ff:ff:ff"),
        ("192.168.5.5", "10.2.0.63", "ff:ff:ff:ff:ff:ff"),
        ("0.0.0.0", "224.0.0.1", "01:00:5e:00:00:01"),
    ):
        send_raw(stage.web, "eth0", to, udp(source, target, 7, SECRET))
        assert arrived(stage) == {"mate"}, target


def test_a_container_of_two_networks_answers_by_either(stage):
    """A packet that came by B is answered by A, where the default route is."""
    stage.other.ip("route del default")
    stage.host.ip("link add both up type veth peer name eth1", f"link set both master {A.bridge}")
    stage.host.ip(f"link set eth1 netns {stage.other.path}")
    stage.other.ip(
        "addr add 10.2.0.5/26 dev eth1", "link set eth1 up", "route add default via 10.2.0.1"
    )
    also = rules.SourceAddress(IPv4Address("10.2.0.66"), A.bridge)
    with stage.other.listen(80) as server:
        assert stage.lan.cannot_reach(server, "10.2.0.66", 80)
        stage.firewall.apply(Plan(add=(also,)))
        assert stage.lan.reach(server, "10.2.0.66", 80) == PEER
    # which opens nothing between networks, not even to a flow that the host knows
    lie(stage, "10.2.0.66", "10.2.0.130")
    stage.host.sysctl("bridge/bridge-nf-call-iptables", "1")
    pair = stage.container(B.bridge, "10.2.0.67/26", "10.2.0.65")
    with stage.other.listen(7000, udp=True) as server:
        assert pair.reach(server, "10.2.0.66", 7000) == "10.2.0.67"
    with closing(Ear(pair)) as ear:
        lie(stage, "10.2.0.66", "10.2.0.67", (7000, 7000))
        assert arrived(stage) == set()
        send(stage.host, "10.2.0.67", 9, END)
        assert not ear.heard(SECRET)


def test_who_lies_in_arp_gains_nothing(stage):
    """Neither what is for another network's containers, nor for the host, nor for the LAN."""
    mine = bytes.fromhex(mac_of(stage.web, "eth0").replace(":", ""))
    bridge = mac_of(stage.host, A.bridge)
    for ip in ("10.2.0.66", HOST, LAN, "10.2.0.65", "10.2.9.0"):
        stage.web.ip(f"addr add {ip}/32 dev eth0")
        for to in ("ff:ff:ff:ff:ff:ff", bridge):
            for kind in (1, 2):
                ends = mine + socket.inet_aton(ip) + bytes(6) + socket.inet_aton(ip)
                lying = struct.pack("!HHBBH", 1, 0x0800, 6, 4, kind) + ends
                send_raw(stage.web, "eth0", to, lying, 0x0806)
    with closing(Ear(stage.web)) as ear, stage.other.listen(80) as server:
        assert stage.host.reach(server, "10.2.0.66", 80) == "10.2.0.65"
        assert stage.lan.reach(server, "10.2.0.66", 80) == PEER
        send(stage.other, LAN, 7, SECRET)
        send(stage.host, PEER, 7, SECRET)
        send(stage.host, "10.2.0.66", 7, SECRET)
        assert arrived(stage) == {"other", "lan"}
        send(stage.host, "10.2.0.2", 9, END)
        assert not ear.heard(SECRET)


@pytest.mark.parametrize("link", ["eth0", "flannel.1"])
def test_no_host_sends_with_an_address_of_this_one(stage, link):
    """Of those of the link only peers come in at all, and each with its own."""
    stage.firewall.apply(Plan(add=DIRECT))
    mac = mac_of(stage.host, link)

    def come(source):
        send_raw(stage.lan, link, mac, udp(source, "10.2.0.66", 7, SECRET))
        return "other" in arrived(stage)

    assert come("10.2.8.2")
    for source in ("10.2.0.67", "10.2.0.2", "10.2.0.250"):
        assert not come(source), source
    assert come("10.2.77.2") == (link == "flannel.1")
    assert not come(LAN) if link == "eth0" else come(LAN)
    flush(stage.host)
    assert come("10.2.0.67")


def test_no_container_reaches_etcd(stage):
    """Neither one on this host, by whatever address and port of it, nor one elsewhere."""
    stage.firewall.apply(
        Plan(
            add=(
                *(rules.EtcdMember(IPv4Address(ip), 2379) for ip in (LAN, HOST)),
                rules.LocalEtcd(2379),
                *DIRECT,
                rules.PortMap("tcp", IPv4Address(0), 9379, IPv4Address("10.2.0.66"), 2379, "x"),
            )
        )
    )
    stage.inner.ip("route replace default via 10.2.0.129")
    stage.lan.ip("addr add 10.2.8.2/32 dev lo")
    with stage.host.listen(2379) as here, stage.lan.listen(2379) as there:
        for client in (stage.web, stage.other, stage.inner):
            assert client.cannot_reach(there, LAN, 2379)
            for ip in (HOST, "10.2.0.1", "10.2.0.65", "10.2.0.0"):
                assert client.cannot_reach(here, ip, 2379), ip
        assert stage.lan.cannot_reach(here, "10.2.0.0", 2379)
        stage.lan.ip(f"route add {HOST}/32 dev eth0 src 10.2.8.2")
        assert stage.lan.cannot_reach(here, HOST, 2379)
        stage.lan.ip(f"route del {HOST}/32 dev eth0")
        assert stage.lan.reach(here, HOST, 2379) == LAN
        assert stage.host.reach(there, LAN, 2379) == HOST
        assert stage.docker.reach(here, HOST, 2379) == "198.51.100.2"
    with stage.lan.listen(2380) as there, stage.other.listen(2379) as own:
        assert stage.web.reach(there, LAN, 2380) == HOST
        assert stage.web.reach(own, HOST, 9379) == "10.2.0.2"
