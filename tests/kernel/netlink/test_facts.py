"""What the netlink adapter tells of the host's own links and routes."""

from contextlib import closing
from ipaddress import IPv4Network

import pytest

from driver.host.netlink.channel import Channel
from driver.model.facts import GATEWAY, OWN
from tests.kernel.adapters import facts_of
from tests.kernel.netlink.sample import N1

pytestmark = pytest.mark.kernel


def test_facts_of_an_empty_host(netlink, host):
    found = facts_of(netlink)
    assert (found.uplinks, found.onlink, found.gates) == (frozenset(), (), frozenset())
    assert found.uplink_mtu is None
    host.sysctl("ipv4/ip_forward", "0")
    assert not facts_of(netlink).forwarding
    host.sysctl("ipv4/ip_forward", "1")
    assert facts_of(netlink).forwarding
    for value in ("0", "1"):
        host.sysctl("bridge/bridge-nf-call-iptables", value)
        assert facts_of(netlink).bridged == (value == "1")


def test_facts_leave_out_ours(full):
    found = facts_of(full)
    assert (found.uplinks, found.onlink, found.uplink_mtu) == (frozenset(), (), None)


def test_links_of_one_kind(host):
    host.ip("link add br0 type bridge", "link add veth0 type veth peer name veth1")
    with host, closing(Channel()) as channel:
        assert {link.name for link in channel.links("bridge").values()} == {"br0"}
        assert {link.name for link in channel.links("veth").values()} == {"veth0", "veth1"}
        assert not channel.links("unknown"), "of which the kernel lists all"


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
    assert facts_of(full).uplinks == {"br0", "br1", "br2", "br3"}
    assert (IPv4Network("172.17.0.0/16"), "docker0") in facts_of(full).holders
    host.ip("route del default", "route del 10.99.0.0/16", "link set vxlan0 nomaster")
    assert facts_of(full).uplinks == frozenset()


def test_tunnels_are_flannels_ports_and_carriers_the_bridges_they_use(full, host):
    host.ip(
        *(f"link add {name} up type bridge" for name in ("br0", "br1")),
        "link add flannel.1 type vxlan id 1 dstport 8472 dev br0",
        "link add flannel.7 type vxlan id 7 dstport 4789 dev br0",
        "link add other type vxlan id 8 dstport 7777 dev lo",
        "tuntap add flannel0 mode tun",
    )
    found = facts_of(full)
    assert (found.tunnels, found.carriers) == ({8472, 4789, 8285}, {"br0"})
    host.ip("link del flannel.1", "link del flannel.7", "link del flannel0")
    found = facts_of(full)
    assert (found.tunnels, found.carriers) == (frozenset(), frozenset())


def test_lans_lead_out_and_places_are_addresses_and_the_way_out(full, host):
    host.ip(
        "link add eth0 up type veth peer name veth1",
        *(f"link add {name} up type bridge" for name in ("br0", "docker0")),
        "link add flannel.9 up type vxlan id 9 dstport 4789",
        "addr add 192.168.7.1/24 dev eth0",
        "addr add 10.7.0.1/24 dev br0",
        "addr add 10.8.0.1/24 dev docker0",
        "addr add 10.9.0.0/32 dev flannel.9",
        "addr add 172.31.255.1/24 dev lo",
        "route add default via 192.168.7.254",
        "route add 10.60.0.0/16 via 192.168.7.253",
        "route add 10.61.0.0/16 via 10.7.0.254",
        "route add 10.9.1.0/24 via 10.9.1.0 dev flannel.9 onlink",
    )
    found = facts_of(full)
    assert [str(net) for net in found.lans] == ["10.7.0.0/24", "192.168.7.0/24"]
    assert {"10.60.0.0/16", "10.61.0.0/16", "10.7.0.0/24"} <= {str(net) for net in found.routed}
    assert not {"0.0.0.0/0", "10.9.1.0/24"} & {str(net) for net in found.routed}
    assert {str(ip): what for ip, what in found.places} == {
        **dict.fromkeys(("192.168.7.1", "10.7.0.1", "10.8.0.1", "10.9.0.0", "172.31.255.1"), OWN),
        "192.168.7.254": GATEWAY,
    }


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
    found = facts_of(full)
    assert found.uplink_mtu == 1400
    assert [str(net) for net in found.onlink] == [
        "10.0.0.1/32",
        "10.0.0.2/32",
        "10.50.0.0/16",
        "172.31.255.1/32",
        "192.168.7.0/24",
    ]
    host.ip(f"route add default dev {N1.bridge} scope link metric 5")
    assert facts_of(full).uplink_mtu == N1.mtu
