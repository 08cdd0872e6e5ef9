"""What is for the Network but for no peer, as tables."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.core.strays import plan_route, plan_rules, warnings
from driver.model.facts import ETCD, GATEWAY, OWN, External, Facts
from driver.model.firewall import ClosedPrefix, NearPrefix
from driver.model.objects import UnreachableRoute
from driver.model.records import Lease, Overlay, Peer, replace

N, IP = IPv4Network, IPv4Address
NETWORK, SUBNET = N("10.0.0.0/8"), N("10.9.0.0/24")
OVERLAY = Overlay(NETWORK, 24, NETWORK[256], NETWORK[0xFFFF00], "vxlan")
PEER = Peer(N("10.5.20.0/24"), IP("192.0.2.20"), "vxlan", "02:00:00:00:00:20")
AFAR = replace(PEER, public_ip=IP("10.8.0.20"))
HERE = Facts(external=External("eth0", IP("192.0.2.11"), 1500, (N("192.0.2.0/24"),)))
LEASE = Lease(NETWORK, SUBNET, 1450, "etcd")


@pytest.mark.parametrize(
    ("facts", "peers", "need"),
    [
        (HERE, [PEER], ""),
        (replace(HERE, places=((IP("192.0.2.201"), ETCD),)), [PEER], ""),
        (replace(HERE, places=((IP("10.66.0.9"), ETCD),)), [PEER], "10.66.0.9, an endpoint"),
        (replace(HERE, resolvers=(IP("10.66.0.53"),)), [], "10.66.0.53, a name server"),
        # on a link, in a peer's subnet or in our own it is reached by a longer route
        (replace(HERE, resolvers=(IP("10.66.0.53"),), onlink=(N("10.66.0.0/24"),)), [], ""),
        (replace(HERE, resolvers=(IP("10.5.20.53"),)), [PEER], ""),
        (replace(HERE, resolvers=(IP("10.9.0.53"),)), [], ""),
        (replace(HERE, resolvers=(IP("10.66.0.53"),), routed=(N("10.66.0.0/24"),)), [], ""),
        # but not on one that has all of the Network in it, which our route would be longer than
        (replace(HERE, resolvers=(IP("10.66.0.53"),), onlink=(NETWORK,)), [], "10.66.0.53, a name"),
        (HERE, [AFAR], "10.8.0.20, the address of another host"),
        (replace(HERE, onlink=(N("10.8.0.0/24"),)), [AFAR], ""),
        # its own address is on a link, but behind its gateway may be anything
        (replace(HERE, places=((IP("10.1.2.3"), OWN),), onlink=(N("10.1.2.0/24"),)), [PEER], ""),
        (replace(HERE, places=((IP("10.1.2.254"), GATEWAY),), onlink=(N("10.1.2.0/24"),)), [PEER],
         "10.1.2.254, this host's gateway"),
    ],
)  # fmt: skip
def test_the_route_cuts_nothing_off(facts: Facts, peers: list[Peer], need: str) -> None:
    routes = list(plan_route(OVERLAY, SUBNET, peers, facts))
    assert routes == ([] if need else [UnreachableRoute(NETWORK)])
    told = list(warnings(OVERLAY, SUBNET, peers, facts))
    assert len(told) == bool(need)
    if need:
        assert f"the Network 10.0.0.0/8 contains {need}" in told[0]


def test_containers_are_kept_in_but_for_links_and_hosts() -> None:
    facts = replace(
        HERE,
        onlink=(N("10.1.2.0/24"), N("10.1.2.7/32"), N("172.17.0.0/16"), N("10.0.0.0/7")),
        routed=(N("10.1.2.0/24"), N("10.70.0.0/16")),
    )
    hosts = [replace(PEER, public_ip=IP(ip)) for ip in ("10.8.0.20", "10.1.2.9", "192.0.2.20")]
    assert set(plan_rules(LEASE, hosts, facts)) == {
        ClosedPrefix(IPv4Network("10.0.0.0/8")),
        NearPrefix(IPv4Network("10.1.2.0/24")),
        NearPrefix(IPv4Network("10.70.0.0/16")),
        NearPrefix(IPv4Network("10.8.0.20")),
    }


def test_a_network_that_was_accepted_once_and_is_no_overlays_closes_nothing() -> None:
    half = N("0.0.0.0/1")
    wide = replace(OVERLAY, network=half)
    assert not list(plan_route(wide, SUBNET, [PEER], HERE))
    assert not list(plan_rules(replace(LEASE, network=half), [PEER], HERE))


def test_where_flanneld_makes_the_routes_nothing_is_closed() -> None:
    assert not list(plan_rules(replace(LEASE, source="subnet-file"), [], HERE))
