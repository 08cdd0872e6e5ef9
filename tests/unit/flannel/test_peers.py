"""Which leases are peers, and what is wrong with the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driver.flannel.etcd.registry import Entry
from driver.flannel.peers import select_peers
from driver.flannel.records import LeaseRecord, lease_value, read_lease, read_leases
from driver.model.records import Peer
from tests.unit.flannel_sample import (
    BROKEN,
    FOLDER,
    GOLDEN,
    GOLDEN_GW,
    IP,
    OVERLAY,
    OWN,
    N,
    record,
    value,
)

GOOD = [
    record("10.5.20.0/24", "192.168.77.20", "02:00:00:00:00:20"),
    record("10.5.21.0/24", "192.168.77.21", "02:00:00:00:00:21"),
]
PEERS = frozenset(Peer(r.subnet, r.public_ip, "vxlan", r.mac) for r in GOOD)
MINE = record("10.5.9.0/24", "192.168.77.10", "02:00:00:00:00:01")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (record("10.5.9.0/24", "192.168.77.30"), "gives our own subnet to 192.168.77.30"),
        (record("10.5.9.128/25", "192.168.77.30"), "overlaps our own subnet 10.5.9.0/24"),
        (record("10.5.0.0/16", "192.168.77.30"), "overlaps our own subnet 10.5.9.0/24"),
        (record("10.6.1.0/24", "192.168.77.30"), "is not inside the Network 10.5.0.0/16"),
        (record("10.5.30.0/24", "192.168.77.10"), "has our own PublicIP 192.168.77.10"),
        (record("10.5.30.0/24", "127.0.0.1"), "has the PublicIP 127.0.0.1, which no host can have"),
        (record("10.5.30.0/24", "0.0.0.0"), "has the PublicIP 0.0.0.0"),
        (record("10.5.30.0/24", "224.0.0.1"), "has the PublicIP 224.0.0.1"),
        (record("10.5.30.0/24", "255.255.255.255"), "has the PublicIP 255.255.255.255"),
        (record("10.5.30.0/24", "192.168.77.30", None), "has no VtepMAC"),
        (record("10.5.30.0/24", "192.168.77.30", OWN.mac), "has our own VtepMAC"),
        (record("10.5.30.0/24", "192.168.77.30", "01:00:5e:00:00:01"), "no host can have"),
        (record("10.5.30.0/24", "192.168.77.30", "00:00:00:00:00:00"), "no host can have"),
        (replace(record("10.5.30.0/24", "192.168.77.30"), backend="host-gw"), 'backend "host-gw"'),
        (record("10.5.20.0/24", "192.168.77.30", revision=3), "has the subnet of the later"),
        (record("10.5.30.0/24", "192.168.77.30", GOOD[0].mac, 3), "has the MAC 02:00:00:00:00:20"),
    ],
)  # fmt: skip
def test_what_is_no_peer_is_told_and_takes_nobody_along(bad: LeaseRecord, words: str) -> None:
    for records in ([bad, *GOOD, MINE], [MINE, *GOOD, bad]):
        peers, problems = select_peers(records, OVERLAY, OWN)
        assert peers == PEERS
        assert len(problems) == 1
        assert words in problems[0]
        assert problems[0].endswith(": skipped")


def test_all_of_it_at_once_takes_nobody_along() -> None:
    entries: list[Entry] = []
    for n, (fields, _) in enumerate(BROKEN):
        entries.append(Entry(f"{FOLDER}10.5.{100 + n}.0-24", value(**fields), n))
    entries.append(Entry(FOLDER + "hello", GOLDEN, 9))
    entries.append(Entry("/coreos.com/network/subnetsXYZ/hello", b"world", 9))
    for n, peer in enumerate(GOOD):
        text = lease_value(peer.public_ip, "vxlan", 1, peer.mac).encode()
        entries.append(Entry(peer.key, text, 50 + n))
    records, problems = read_leases(entries, {})
    assert len(problems) == len(BROKEN) + 2
    assert select_peers(records, OVERLAY, OWN) == (PEERS, [])


def test_the_later_one_of_two_for_one_subnet_or_mac_counts() -> None:
    old = record("10.5.30.0/24", "192.168.77.30", "02:00:00:00:00:30", 3)
    new = replace(old, public_ip=IP("192.168.77.31"), key=old.key + "&fd00::-64", revision=4)
    assert select_peers([old, new], OVERLAY, OWN)[0] == {
        Peer(N("10.5.30.0/24"), IP("192.168.77.31"), "vxlan", "02:00:00:00:00:30")
    }
    moved = record("10.5.31.0/24", "192.168.77.32", "02:00:00:00:00:30", 5)
    peers, problems = select_peers([old, moved], OVERLAY, OWN)
    assert {p.public_ip for p in peers} == {IP("192.168.77.32")}
    assert len(problems) == 1


def test_of_two_subnets_that_begin_alike_one_of_the_right_length_counts() -> None:
    """They would have one VTEP address."""
    good = record("10.5.32.0/24", "192.168.77.30", "02:00:00:00:00:30", 3)
    odd = record("10.5.32.0/25", "192.168.77.31", "02:00:00:00:00:31", 4)
    odder = record("10.5.32.0/26", "192.168.77.32", "02:00:00:00:00:32", 5)
    for records in ([good, odd], [odd, good]):
        peers, problems = select_peers(records, OVERLAY, OWN)
        assert peers == {good.peer}
        assert f'has the subnet of the "{good.key}"' in problems[0]
    peers, problems = select_peers([odd, odder], OVERLAY, OWN)
    assert peers == {odder.peer}
    assert "has the subnet of the later" in problems[0]
    same = replace(odd, public_ip=good.public_ip, mac=good.mac)
    assert select_peers([same, good], OVERLAY, OWN) == (frozenset({same.peer, good.peer}), [])


def test_one_host_may_have_two_subnets() -> None:
    one = record("10.5.30.0/24", "192.168.77.30", "02:00:00:00:00:30", 3)
    two = record("10.5.31.0/24", "192.168.77.30", "02:00:00:00:00:30", 4)
    peers, problems = select_peers([one, two], OVERLAY, OWN)
    assert (len(peers), problems) == (2, [])


def test_without_a_subnet_of_our_own_there_are_peers_too() -> None:
    own = replace(OWN, subnet=None)
    assert select_peers(GOOD, OVERLAY, own) == (PEERS, [])
    whole = record("10.5.0.0/16", "192.168.77.30")
    assert "is not inside" in select_peers([*GOOD, whole], OVERLAY, own)[1][0]


def test_peers_of_host_gw_have_no_mac() -> None:
    overlay = replace(OVERLAY, backend="host-gw")
    found = read_lease(FOLDER + "10.5.15.0-24&fd00:5:0:e::-64", GOLDEN_GW, 1)
    assert select_peers([found], overlay, replace(OWN, mac=None))[0] == {
        Peer(N("10.5.15.0/24"), IP("192.168.77.12"), "host-gw")
    }


def test_a_lease_of_ipv6_alone_is_no_peer() -> None:
    found = read_lease(FOLDER + "0.0.0.0-0&fd00:5:0:e::-64", GOLDEN, 1)
    assert "has no IPv4 subnet" in select_peers([found], OVERLAY, OWN)[1][0]
