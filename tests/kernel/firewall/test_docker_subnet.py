"""Packets of a network with Docker's own subnet beside its block: both addresses, every side."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from driver.core import firewall as rules
from driver.model.facts import External, Facts
from driver.model.objects import diff
from driver.model.records import Overlay, Peer, replace
from tests.kernel.sample import HOST, LAN, LEASE, A, endpoint, network, port

pytestmark = pytest.mark.kernel

DUAL = replace(network("d", "10.2.0.193/26"), docker_gateway=IPv4Interface("172.18.0.1/16"))
WEB = replace(
    endpoint("3", DUAL, "10.2.0.194/26", port(8080, 80)),
    docker_ip=IPv4Interface("172.18.0.2/16"),
)
OVERLAY = Overlay(LEASE.network, 24, IPv4Address("10.2.1.0"), IPv4Address("10.2.255.0"), "host-gw")
FACTS = Facts(
    foreign=frozenset({"docker0"}),
    external=External("eth0", IPv4Address(HOST), 1500, (IPv4Network("192.0.2.0/24"),)),
)
# its containers are at NEAR; the LAN's own address is no peer's
DIRECT = Peer(IPv4Network("10.2.8.0/24"), IPv4Address("192.0.2.77"), "host-gw")
DOCKERS, OWN = "172.18.0.2", "10.2.0.194"
FAR, NEAR = "10.2.9.2", "10.2.8.2"  # of another host, by the tunnel and straight


def carry(backend, dual=DUAL):
    facts = replace(FACTS, firewall=backend.name.partition("-")[0])
    wanted = {
        *rules.plan_base(LEASE, OVERLAY, facts),
        *rules.plan_peers([DIRECT]),
        *rules.plan_network_rules(A),
        *rules.plan_network_rules(dual),
        *rules.plan_ports(WEB),
    }
    wanted = {item for item in wanted if isinstance(item, backend.kinds)}
    backend.apply(diff(backend.observe(), wanted))
    assert backend.observe() == wanted


@pytest.fixture
def site(lab, firewall):
    """A container with both addresses, a mate, one of A, the LAN, and two of other hosts."""
    carry(firewall)
    lab.firewall = firewall
    lab.bridge(A.bridge, str(A.gateway))
    lab.bridge(DUAL.bridge, str(DUAL.gateway))
    lab.host.ip(f"addr add {DUAL.docker_gateway} dev {DUAL.bridge}")
    lab.other = lab.container(A.bridge, "10.2.0.2/26", "10.2.0.1")
    lab.web, lab.mate = (
        lab.container(DUAL.bridge, f"172.18.0.{n}/16", "172.18.0.1") for n in (2, 3)
    )
    for n, box in ((194, lab.web), (195, lab.mate)):
        box.ip(
            f"addr add 10.2.0.{n}/26 dev eth0",
            f"route add 10.2.0.0/16 via 10.2.0.193 src 10.2.0.{n}",
        )
    lab.lan = lab.neighbour("eth0", f"{HOST}/24", f"{LAN}/24")
    lab.lan.ip(
        f"addr add {NEAR}/32 dev lo",
        f"route add 10.2.0.0/24 via {HOST} src {NEAR}",
        f"route add 172.18.0.0/16 via {HOST}",
    )
    lab.peer = lab.neighbour("flannel.1", "10.2.0.0/32", f"{FAR}/24")
    lab.host.ip("route add 10.2.9.0/24 dev flannel.1", f"route add 10.2.8.0/24 via {LAN}")
    lab.peer.ip("route add 10.2.0.0/24 via 10.2.0.0 dev eth0 onlink")
    return lab


def use_dockers(box, *targets):
    """Have a container use Docker's address, as before it has another or if a program binds it."""
    box.ip(*(f"route add {t}/32 via 172.18.0.1 src {DOCKERS}" for t in targets))


def test_between_hosts_the_lease_address_is_seen(site):
    for there, target in ((site.peer, FAR), (site.lan, NEAR)):
        with there.listen(80) as server:
            assert site.web.reach(server, target, 80) == OWN
    with site.web.listen(80) as server:
        assert site.peer.reach(server, OWN, 80) == FAR
        assert site.lan.reach(server, OWN, 80) == NEAR


@pytest.mark.parametrize("masquerade", [True, False])
def test_dockers_address_never_leaves_the_host(site, masquerade):
    carry(site.firewall, replace(DUAL, masquerade=masquerade))
    use_dockers(site.web, FAR, NEAR)
    with site.peer.listen(80) as server:
        assert site.web.reach(server, FAR, 80) == "10.2.0.0"
    with site.lan.listen(80) as server:
        assert site.web.reach(server, NEAR, 80) == HOST
        assert site.web.reach(server, LAN, 80) == HOST


def test_a_published_port_is_reached_from_everywhere(site):
    with site.web.listen(80) as server:
        assert site.lan.reach(server, HOST, 8080) == LAN
        assert site.host.reach(server, HOST, 8080) == HOST
        assert site.host.reach(server, "127.0.0.1", 8080) == "172.18.0.1"
        for gateway in ("172.18.0.1", "10.2.0.193", HOST):
            assert site.mate.reach(server, gateway, 8080) == "172.18.0.1"
            assert site.web.reach(server, gateway, 8080) == "172.18.0.1"
        assert site.other.reach(server, HOST, 8080) == "10.2.0.2"


def test_a_port_leads_to_a_program_that_is_bound_to_dockers_address(site):
    with site.web.listen(80, ip=DOCKERS) as server:
        assert site.lan.reach(server, HOST, 8080) == LAN


def test_on_the_link_and_on_the_host_both_addresses_work(site):
    with site.web.listen(80) as server:
        assert site.mate.reach(server, DOCKERS, 80) == "172.18.0.3"
        assert site.mate.reach(server, OWN, 80) == "10.2.0.195"
        assert site.host.reach(server, DOCKERS, 80) == "172.18.0.1"
        assert site.host.reach(server, OWN, 80) == "10.2.0.193"


def test_other_networks_reach_neither_address(site):
    site.host.ip(
        "link add docker0 type bridge", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up"
    )
    plain = site.container("docker0", "172.17.0.2/16", "172.17.0.1")
    with site.web.listen(80) as server:
        for target in (DOCKERS, OWN):
            assert site.other.cannot_reach(server, target, 80)
            assert plain.cannot_reach(server, target, 80)
        assert site.lan.cannot_reach(server, DOCKERS, 80)
    use_dockers(site.web, "10.2.0.2")
    for there, target in ((site.other, "10.2.0.2"), (plain, "172.17.0.2")):
        with there.listen(80) as server:
            assert site.web.cannot_reach(server, target, 80)


def test_an_internal_one_lets_nobody_out(site):
    carry(site.firewall, replace(DUAL, internal=True))
    with site.lan.listen(80) as server:
        assert site.web.cannot_reach(server, LAN, 80)
    with site.web.listen(80) as server:
        assert site.mate.reach(server, DOCKERS, 80) == "172.18.0.3"
        assert site.mate.reach(server, OWN, 80) == "10.2.0.195"
        assert site.lan.cannot_reach(server, DOCKERS, 80)
