"""Peers from before keep their place; no lease may cover what this host uses itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driver.flannel.lease_types import ThisHost
from driver.flannel.peers import clear_of_local, select_peers
from driver.flannel.records import LeaseRecord
from driver.model.facts import ETCD, GATEWAY, OWN, LocalAddresses
from driver.model.records import Peer
from tests.unit.flannel_sample import IP, OVERLAY, N, record

WIDE = replace(OVERLAY, network=N("10.0.0.0/8"))
GROUND = LocalAddresses(
    onlink=(N("10.1.2.0/24"), N("10.3.0.0/16"), N("172.17.0.0/16")),
    places=(
        (IP("10.1.2.3"), OWN),
        (IP("10.1.2.254"), GATEWAY),
        (IP("10.6.0.9"), ETCD),
    ),
)
HERE = ThisHost(IP("10.1.2.3"), "02:00:00:00:00:01", N("10.9.0.0/24"), GROUND)
OLD = record("10.5.20.0/24", "10.1.2.20", "02:00:00:00:00:20", 5)
OTHER = record("10.5.21.0/24", "10.1.2.21", "02:00:00:00:00:21", 6)
BEFORE = frozenset({OLD.peer, OTHER.peer})


def later(subnet: str, ip: str = "10.1.2.30", mac: str = "02:00:00:00:00:30") -> LeaseRecord:
    return record(subnet, ip, mac, 99)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (later("10.5.20.128/25"), 'overlaps the "/coreos.com/network/subnets/10.5.20.0-24" of 10.'),
        (later("10.5.20.0/26"), "has the subnet of the"),
        (later("10.5.20.7/32"), "overlaps the"),
        (later("10.5.0.0/16"), "is larger than the config's SubnetLen, /24, allows"),
        (later("10.5.30.0/24", mac="02:00:00:00:00:20"), "has the MAC 02:00:00:00:00:20 of the"),
        (later("10.1.2.0/24"), "overlaps 10.1.2.0/24, which this host reaches directly or owns"),
        (later("10.1.2.128/25"), "overlaps 10.1.2.0/24, which this host reaches"),
        (later("10.3.7.0/24"), "overlaps 10.3.0.0/16, which this host reaches"),
        (later("10.6.0.0/24"), "covers 10.6.0.9, an endpoint of etcd"),
        (later("10.6.0.9/32"), "covers 10.6.0.9, an endpoint of etcd"),
        (later("10.7.0.0/24", ip="10.7.0.1"), "covers its own PublicIP"),
        (later("10.7.0.0/24", ip="10.5.20.5"), "has a PublicIP in the"),
        (later("10.7.0.0/24", ip="10.9.0.5"), "has the PublicIP 10.9.0.5, which is in our own"),
    ],
)
def test_a_newcomer_is_refused_and_named(bad: LeaseRecord, words: str) -> None:
    for records in ([bad, OLD, OTHER], [OTHER, OLD, bad]):
        peers, problems = select_peers(records, WIDE, HERE, BEFORE)
        assert peers == BEFORE
        assert len(problems) == 1
        assert words in problems[0]
        assert bad.key in problems[0]


def test_a_lease_that_covers_another_host_is_refused() -> None:
    routed = replace(OLD, public_ip=IP("10.8.0.20"))
    peers, problems = select_peers([later("10.8.0.0/24"), routed], WIDE, HERE, frozenset())
    assert peers == {routed.peer} or peers == {later("10.8.0.0/24").peer}, "one of them"
    assert len(problems) == 1
    peers, problems = select_peers(
        [later("10.8.0.0/24"), routed], WIDE, HERE, frozenset({routed.peer})
    )
    assert peers == {routed.peer}
    assert "covers the PublicIP of the" in problems[0]


@pytest.mark.parametrize(
    "again",
    [
        replace(OLD, mac="02:00:00:00:00:77", revision=50),  # flanneld or the host restarted
        replace(OLD, public_ip=IP("10.1.2.120"), revision=50),  # another address, the MAC is kept
        replace(OLD, revision=50),  # renewed
    ],
)
def test_a_host_that_writes_its_lease_again_keeps_its_place(again: LeaseRecord) -> None:
    liars = [later("10.5.20.0/25"), later("10.5.31.0/24", mac="02:00:00:00:00:21")]
    peers, problems = select_peers([*liars, again, OTHER], WIDE, HERE, BEFORE)
    assert peers == {again.peer, OTHER.peer}
    assert len(problems) == len(liars)


def test_a_host_with_another_subnet_is_the_same_host() -> None:
    moved = replace(later("10.5.40.0/24"), public_ip=OLD.public_ip, mac=OLD.mac)
    peers, problems = select_peers([OLD, moved, OTHER], WIDE, HERE, BEFORE)
    assert (peers, problems) == (BEFORE | {moved.peer}, [])
    assert select_peers([moved, OTHER], WIDE, HERE, BEFORE) == (
        frozenset({moved.peer, OTHER.peer}),
        [],
    )


def test_a_host_that_takes_anothers_mac_for_its_own_lease_is_refused() -> None:
    thief = replace(OTHER, mac=OLD.mac, revision=50)
    for own in (OLD, replace(OLD, public_ip=IP("10.1.2.120"), revision=51)):
        peers, problems = select_peers([thief, own], WIDE, HERE, BEFORE)
        assert peers == {own.peer}
        assert "has the MAC 02:00:00:00:00:20 of the" in problems[0]


def test_the_place_of_a_host_that_is_gone_is_free() -> None:
    heir = later("10.5.20.0/25", mac="02:00:00:00:00:20")
    found = select_peers([heir, OTHER], WIDE, HERE, BEFORE)
    assert found == (frozenset({heir.peer, OTHER.peer}), [])


def test_what_was_refused_gets_its_place_when_the_other_is_gone() -> None:
    peers, _ = select_peers([later("10.5.20.0/25"), OLD], WIDE, HERE, BEFORE)
    assert select_peers([later("10.5.20.0/25")], WIDE, HERE, peers)[1] == []


def test_a_peer_of_an_older_and_larger_subnet_length_stays() -> None:
    smaller = replace(WIDE, subnet_len=26)
    assert select_peers([OLD, OTHER], smaller, HERE, BEFORE) == (BEFORE, [])
    peers, problems = select_peers([OLD, OTHER], smaller, HERE, frozenset({OLD.peer}))
    assert peers == {OLD.peer}
    assert "is larger than the config's SubnetLen, /26, allows" in problems[0]
    longer = later("10.5.40.0/27")
    assert select_peers([longer], smaller, HERE, BEFORE) == (frozenset({longer.peer}), [])


def test_a_link_that_comes_later_inside_a_peers_subnet_does_not_cut_the_peer_off() -> None:
    """The kernel prefers the longer prefix, that of the link."""
    ground = LocalAddresses((N("10.5.20.128/25"),), places=((IP("10.5.20.129"), OWN),))
    here = replace(HERE, local=ground)
    assert select_peers([OLD, OTHER], WIDE, here, BEFORE) == (BEFORE, [])
    assert "overlaps 10.5.20.128/25" in select_peers([OLD, OTHER], WIDE, here)[1][0]
    etcd = replace(here, local=replace(ground, places=((IP("10.5.20.1"), ETCD),)))
    assert "covers 10.5.20.1, an endpoint" in select_peers([OLD, OTHER], WIDE, etcd, BEFORE)[1][0]


@pytest.mark.parametrize("around", ["10.0.0.0/8", "10.0.0.0/7", "10.5.0.0/16"])
def test_a_link_with_the_whole_network_in_it_says_nothing_about_a_lease(around: str) -> None:
    network = N("10.5.0.0/16") if around == "10.5.0.0/16" else WIDE.network
    overlay = replace(WIDE, network=network)
    here = replace(
        HERE, local=LocalAddresses((N(around, strict=False),), places=((IP("10.5.7.7"), OWN),))
    )
    here = replace(here, subnet=N("10.5.9.0/24"))
    assert select_peers([OLD, OTHER], overlay, here) == (BEFORE, [])
    bad = later("10.5.7.0/24")
    assert "covers 10.5.7.7, this host's own address" in select_peers([bad], overlay, here)[1][0]


def test_no_newcomer_lives_among_the_containers() -> None:
    """Otherwise one lease would open the default route for the Network."""
    away = replace(HERE, public_ip=IP("192.0.2.3"))
    bad = later("10.7.0.0/24", ip="10.99.0.1")
    peers, problems = select_peers([bad], WIDE, away)
    assert peers == frozenset()
    assert "has the PublicIP 10.99.0.1, which is inside the Network, where this" in problems[0]
    assert select_peers([bad], WIDE, away, frozenset({bad.peer})) == (frozenset({bad.peer}), [])
    near = later("10.7.0.0/24", ip="10.3.0.7")
    for fine, here in ((near, away), (bad, HERE)):
        assert select_peers([fine], WIDE, here) == (frozenset({fine.peer}), [])


def test_thousands_of_one_host_inside_another_take_nobody_along() -> None:
    bad = [later(f"10.5.20.{n}/32", mac=f"02:00:00:00:01:{n:02x}") for n in range(256)]
    bad += [later(f"10.5.20.{n}/31", mac=f"02:00:00:00:02:{n:02x}") for n in range(0, 256, 2)]
    peers, problems = select_peers([*bad, OLD, OTHER], WIDE, HERE, BEFORE)
    assert peers == BEFORE
    assert len(problems) == len(bad)


def test_while_etcd_is_away_no_stored_peer_is_in_the_way_to_it() -> None:
    bad = Peer(N("10.6.0.0/24"), IP("10.1.2.66"), "vxlan", "02:00:00:00:00:66")
    assert clear_of_local(BEFORE | {bad}, WIDE, HERE) == BEFORE
    assert clear_of_local(BEFORE, WIDE, HERE) == BEFORE
    assert clear_of_local(BEFORE | {bad}, None, HERE) == BEFORE | {bad}
