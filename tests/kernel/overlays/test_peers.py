"""Peers that come, go and change, one by one and in thousands."""

import random
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.host.netlink.channel import AT_ONCE
from driver.model.objects import Fdb, Neighbour, PeerRoute, Plan, diff
from driver.model.records import Peer, replace
from tests.kernel.adapters import refusals
from tests.kernel.overlays.sample import ALL, FDB, NET, OVERLAY, PEERS, peer, wanted

pytestmark = pytest.mark.kernel


def test_direct_route_and_host_gw(full):
    direct = wanted(PEERS, replace(OVERLAY, direct_routing=True))
    full.apply(diff(full.observe(), direct))
    assert full.observe() == direct
    assert not [t for t in direct if isinstance(t, Neighbour | Fdb)]
    host_gw = wanted([replace(p, backend="host-gw", mac=None) for p in PEERS], gateway())
    full.apply(diff(full.observe(), host_gw))
    assert full.observe() == host_gw
    assert {type(t) for t in host_gw} == {PeerRoute}


def gateway():
    return replace(OVERLAY, backend="host-gw")


def test_peer_that_comes_back_with_another_mac_and_address_leaves_nothing(full):
    changed = wanted([peer(24, 1), PEERS[1]])
    full.apply(diff(ALL, changed))
    assert full.observe() == changed


def test_leases_with_one_mac_share_an_entry(full):
    both = wanted([PEERS[0], peer(30, 24)])
    full.apply(diff(ALL, both))
    assert full.observe() == both
    one = wanted([peer(30, 24)])
    full.apply(diff(both, one))
    assert full.observe() == one
    assert FDB in one


def test_device_of_an_old_number_goes(full):
    want = wanted(PEERS, replace(OVERLAY, vni=7))
    full.apply(diff(ALL, want))
    assert full.observe() == want


def test_thousand_changes_leave_no_entry_over(node):
    chance = random.Random(5)  # noqa: S311
    peers, have = dict[int, Peer](), wanted(())
    node.apply(diff((), have))
    for _ in range(1000):
        number = chance.randrange(11, 60)
        if number in peers and chance.random() < 0.4:
            del peers[number]
        else:
            peers[number] = peer(number, chance.randrange(12, 60))
        want = wanted(peers.values())
        node.apply(diff(have, want))
        have = want
    assert node.observe() == have
    node.apply(diff(have, wanted(())))
    assert node.observe() == wanted(())


NEAR, FAR = IPv4Address("192.168.77.9"), IPv4Address("172.31.0.1")


def route_by(via, number):
    dst = IPv4Network((int(NET[0]) + 16 * number, 28))
    return PeerRoute(dst, via, "eth0", onlink=False)


def test_each_refusal_of_a_long_batch_names_its_item(overlays):
    """A gateway that no link reaches, in every third of more routes than go at once."""
    routes = [route_by(NEAR if i % 3 else FAR, i) for i in range(3 * AT_ONCE + 5)]
    said = refusals(overlays, Plan(add=tuple(routes)))
    bad = [route for route in routes if route.via == FAR]
    assert said == [f"cannot set up peer route {b.dst}: Nexthop has invalid gateway" for b in bad]
    assert overlays.observe() == set(routes) - set(bad)
    overlays.apply(Plan(remove=tuple(routes)))
    assert overlays.observe() == frozenset()


def test_all_of_a_batch_may_be_refused(overlays):
    routes = tuple(route_by(FAR, i) for i in range(4 * AT_ONCE))
    assert len(refusals(overlays, Plan(add=routes))) == len(routes)
