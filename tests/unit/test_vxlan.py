"""The objects of the VTEP and of peers, as tables, and their changes as peers come and go."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from driver.model.facts import External
from driver.model.objects import (
    Fdb,
    HostObject,
    LinkAddress,
    Neighbour,
    PeerRoute,
    Plan,
    Sysctl,
    Vxlan,
    diff,
)
from driver.model.records import Overlay, Peer, Vtep, replace
from driver.vxlan import container_mtu, direct_peers, plan_peers, plan_vtep, problems
from tests.unit.fakes import seeded

SUBNET = IPv4Network("10.5.10.0/24")
OVERLAY = Overlay(
    IPv4Network("10.5.0.0/16"), 24, IPv4Address("10.5.1.0"), IPv4Address("10.5.255.0"), "vxlan"
)
DIRECT = replace(OVERLAY, direct_routing=True)
HOST_GW = replace(OVERLAY, backend="host-gw")
VTEP = Vtep(IPv4Address("192.168.77.11"), "fe:2d:0c:76:f0:81")
ETH0 = External("eth0", VTEP.public_ip, 1500, (IPv4Network("192.168.77.0/24"),))
MAC, MAC2 = "aa:27:46:00:38:c1", "d6:b7:db:a1:ba:09"


def peer(
    subnet: str, public_ip: str, mac: str | None = MAC, backend: str = "vxlan", length: int = 24
) -> Peer:
    return Peer(IPv4Network(f"{subnet}/{length}"), IPv4Address(public_ip), backend, mac)


NEAR = peer("10.5.24.0", "192.168.77.24")
FAR = peer("10.5.25.0", "198.51.100.25", MAC2)


def by_vtep(
    subnet: str, public_ip: str, mac: str = MAC, name: str = "flannel.1", length: int = 24
) -> list[HostObject]:
    gateway = IPv4Address(subnet)
    return [
        Neighbour(name, gateway, mac),
        Fdb(name, mac, IPv4Address(public_ip)),
        PeerRoute(IPv4Network(f"{subnet}/{length}"), gateway, name, onlink=True),
    ]


def straight(subnet: str, public_ip: str, link: str = "eth0") -> list[HostObject]:
    return [PeerRoute(IPv4Network(f"{subnet}/24"), IPv4Address(public_ip), link, onlink=False)]


def test_vtep_is_flannels() -> None:
    assert list(plan_vtep(OVERLAY, SUBNET, VTEP, ETH0)) == [
        Vxlan(
            name="flannel.1",
            vni=1,
            port=8472,
            local=IPv4Address("192.168.77.11"),
            parent="eth0",
            mac="fe:2d:0c:76:f0:81",
            mtu=1450,
            gbp=False,
            learning=False,
        ),
        LinkAddress("flannel.1", IPv4Interface("10.5.10.0/32")),
        Sysctl("flannel.1", "ipv6", "accept_ra", "0"),
    ]


def test_vtep_with_every_option() -> None:
    overlay = replace(OVERLAY, vni=4711, port=4789, gbp=True, learning=True, mtu=1400)
    device, address, _ = plan_vtep(overlay, IPv4Network("10.5.64.0/20"), VTEP, ETH0)
    assert device == Vxlan(
        "flannel.4711", 4711, 4789, ETH0.ip, "eth0", VTEP.mac, 1350, True, True
    )  # fmt: skip
    assert address == LinkAddress("flannel.4711", IPv4Interface("10.5.64.0/32"))
    assert overlay.device == "flannel.4711"


def test_vtep_behind_nat_sends_from_the_address_it_has() -> None:
    behind = replace(VTEP, public_ip=IPv4Address("203.0.113.5"))
    device = next(plan_vtep(OVERLAY, SUBNET, behind, ETH0))
    assert isinstance(device, Vxlan)
    assert device.local == ETH0.ip


def test_host_gw_needs_no_device() -> None:
    assert list(plan_vtep(HOST_GW, SUBNET, VTEP, ETH0)) == []


@pytest.mark.parametrize(
    ("overlay", "underlay_mtu", "mtu"),
    [
        (OVERLAY, 1500, 1450),
        (OVERLAY, 9000, 8950),
        (replace(OVERLAY, mtu=1400), 1500, 1350),
        (replace(OVERLAY, mtu=9000), 1500, 1450),
        (DIRECT, 1500, 1450),
        (HOST_GW, 1500, 1500),
        (HOST_GW, 9000, 9000),
    ],
)
def test_container_mtu(overlay: Overlay, underlay_mtu: int, mtu: int) -> None:
    assert container_mtu(overlay, replace(ETH0, mtu=underlay_mtu)) == mtu


@pytest.mark.parametrize(
    ("overlay", "peer_", "objects"),
    [
        (OVERLAY, NEAR, by_vtep("10.5.24.0", "192.168.77.24")),
        (OVERLAY, FAR, by_vtep("10.5.25.0", "198.51.100.25", MAC2)),
        (replace(OVERLAY, vni=9), NEAR, by_vtep("10.5.24.0", "192.168.77.24", name="flannel.9")),
        (
            OVERLAY,
            peer("10.5.64.0", "192.168.77.24", length=20),
            by_vtep("10.5.64.0", "192.168.77.24", length=20),
        ),
        (DIRECT, NEAR, straight("10.5.24.0", "192.168.77.24")),
        (DIRECT, FAR, by_vtep("10.5.25.0", "198.51.100.25", MAC2)),
        (HOST_GW, replace(NEAR, backend="host-gw"), straight("10.5.24.0", "192.168.77.24")),
        (
            HOST_GW,
            replace(NEAR, backend="host-gw", mac=None),
            straight("10.5.24.0", "192.168.77.24"),
        ),
        (HOST_GW, replace(FAR, backend="host-gw"), []),
        (HOST_GW, NEAR, []),
        (OVERLAY, replace(NEAR, backend="host-gw"), []),
        (OVERLAY, replace(NEAR, backend="wireguard", mac=None), []),
        (OVERLAY, replace(NEAR, mac=None), []),
        (DIRECT, replace(NEAR, mac=None), []),
        (OVERLAY, replace(NEAR, public_ip=VTEP.public_ip), []),
        (OVERLAY, replace(NEAR, mac=VTEP.mac), []),
        (DIRECT, replace(NEAR, mac=VTEP.mac), straight("10.5.24.0", "192.168.77.24")),
    ],
)
def test_peer(overlay: Overlay, peer_: Peer, objects: list[HostObject]) -> None:
    assert list(plan_peers(overlay, [peer_], VTEP, ETH0)) == objects
    assert list(plan_peers(overlay, [peer_], VTEP, ETH0)) == objects
    assert bool(list(problems(overlay, [peer_], VTEP, ETH0))) == (not objects)


@pytest.mark.parametrize(
    ("overlay", "peer_", "said"),
    [
        (OVERLAY, replace(NEAR, backend="udp"), "uses backend udp, this host vxlan"),
        (OVERLAY, replace(NEAR, mac=None), "names no VTEP MAC"),
        (OVERLAY, replace(NEAR, mac=VTEP.mac), f"has this host's VTEP MAC, {VTEP.mac}"),
        (
            HOST_GW,
            replace(NEAR, backend="host-gw", public_ip=VTEP.public_ip),
            "has this host's public IP, 192.168.77.11",
        ),
        (
            HOST_GW,
            peer("10.5.24.0", "198.51.100.25", None, "host-gw"),
            "is not on the link of eth0, as host-gw needs it",
        ),
    ],
)
def test_problem_is_named(overlay: Overlay, peer_: Peer, said: str) -> None:
    assert list(problems(overlay, [peer_], VTEP, ETH0)) == [f"peer 10.5.24.0/24 {said}"]


def plan(peers: Sequence[Peer], overlay: Overlay = OVERLAY) -> frozenset[HostObject]:
    return frozenset(plan_peers(overlay, peers, VTEP, ETH0))


def test_one_mac_at_two_addresses_leads_to_the_first_by_subnet() -> None:
    rivals = [replace(FAR, mac=MAC), NEAR, peer("10.5.9.0", "192.168.77.9")]
    for order in (rivals, rivals[::-1]):
        assert plan(order) == frozenset(by_vtep("10.5.9.0", "192.168.77.9"))
        assert list(problems(OVERLAY, order, VTEP, ETH0)) == [
            f"peer 10.5.24.0/24 has the VTEP MAC of peer 10.5.9.0/24, {MAC}",
            f"peer 10.5.25.0/24 has the VTEP MAC of peer 10.5.9.0/24, {MAC}",
        ]


def test_subnets_are_ordered_as_numbers() -> None:
    rivals = [peer("10.5.100.0", "192.168.77.100"), peer("10.5.9.0", "192.168.77.9")]
    assert plan(rivals) == frozenset(by_vtep("10.5.9.0", "192.168.77.9"))


def test_directly_routed_peers_may_have_one_mac() -> None:
    twins = [NEAR, peer("10.5.9.0", "192.168.77.9")]
    assert len(plan(twins, DIRECT)) == 2
    assert list(problems(DIRECT, twins, VTEP, ETH0)) == []


def test_direct_peers_are_those_that_come_as_they_are() -> None:
    inside = peer("10.5.24.128", "192.168.77.26", MAC2, length=25)
    peers = [inside, FAR, NEAR, peer("10.5.27.0", "192.168.77.11")]
    assert list(direct_peers(DIRECT, peers, VTEP, ETH0)) == [NEAR]
    assert list(direct_peers(OVERLAY, peers, VTEP, ETH0)) == []


def test_leases_of_one_host_share_its_fdb_entry() -> None:
    second = peer("10.5.30.0", "192.168.77.24")
    both = plan([NEAR, second])
    assert len(both) == 5
    assert list(problems(OVERLAY, [NEAR, second], VTEP, ETH0)) == []
    neighbour, _, route = by_vtep("10.5.24.0", "192.168.77.24")
    assert diff(both, plan([second])) == Plan(remove=(route, neighbour))


NEIGHBOUR, FDB, ROUTE = by_vtep("10.5.24.0", "192.168.77.24")
NEW_MAC = by_vtep("10.5.24.0", "192.168.77.24", MAC2)
NEW_IP = by_vtep("10.5.24.0", "192.168.77.99")
(BY_LINK,) = straight("10.5.24.0", "192.168.77.24")
TWIN = peer("10.5.30.0", "192.168.77.30")
TWINS = by_vtep("10.5.30.0", "192.168.77.30")

# Each step: the leases as they are then, and what has to be done for them since the step before.
HISTORIES: dict[str, list[tuple[list[Peer], Plan]]] = {
    "comes, is renewed and goes": [
        ([NEAR], Plan(add=(NEIGHBOUR, FDB, ROUTE))),
        ([NEAR], Plan()),
        ([], Plan(remove=(ROUTE, FDB, NEIGHBOUR))),
    ],
    "reboots and has another MAC": [
        ([NEAR], Plan(add=(NEIGHBOUR, FDB, ROUTE))),
        (
            [replace(NEAR, mac=MAC2)],
            Plan(add=(NEW_MAC[1],), change=((NEIGHBOUR, NEW_MAC[0]),), remove=(FDB,)),
        ),
        ([], Plan(remove=(ROUTE, NEW_MAC[1], NEW_MAC[0]))),
    ],
    "gets another public IP": [
        ([NEAR], Plan(add=(NEIGHBOUR, FDB, ROUTE))),
        ([replace(NEAR, public_ip=IPv4Address("192.168.77.99"))], Plan(change=((FDB, NEW_IP[1]),))),
        ([], Plan(remove=(ROUTE, NEW_IP[1], NEIGHBOUR))),
    ],
    "takes another backend and comes back": [
        ([NEAR], Plan(add=(NEIGHBOUR, FDB, ROUTE))),
        ([replace(NEAR, backend="wireguard", mac=None)], Plan(remove=(ROUTE, FDB, NEIGHBOUR))),
        ([NEAR], Plan(add=(NEIGHBOUR, FDB, ROUTE))),
    ],
    "had the MAC of another, which goes": [
        ([TWIN, NEAR], Plan(add=(NEIGHBOUR, FDB, ROUTE))),
        (
            [TWIN],
            Plan(
                add=(TWINS[0], TWINS[2]),
                change=((FDB, TWINS[1]),),
                remove=(ROUTE, NEIGHBOUR),
            ),
        ),
        ([], Plan(remove=(TWINS[2], TWINS[1], TWINS[0]))),
    ],
}


@pytest.mark.parametrize("steps", HISTORIES.values(), ids=HISTORIES)
def test_history(steps: list[tuple[list[Peer], Plan]]) -> None:
    have: frozenset[HostObject] = frozenset()
    for peers, todo in steps:
        want = plan(peers)
        assert diff(have, want) == todo
        have = want


def test_direct_routing_turned_on_and_off() -> None:
    on = diff(plan([NEAR]), plan([NEAR], DIRECT))
    assert on == Plan(change=((ROUTE, BY_LINK),), remove=(FDB, NEIGHBOUR))
    off = diff(plan([NEAR], DIRECT), plan([NEAR]))
    assert off == Plan(add=(NEIGHBOUR, FDB), change=((BY_LINK, ROUTE),))


def test_any_history_ends_in_what_its_last_leases_need() -> None:
    """Plans one by one have the same result as one plan, and never two objects with one key."""
    chance = seeded(8)
    peers: dict[int, Peer] = {}
    have: dict[Any, HostObject] = {}
    for _ in range(150):
        number = chance.randrange(40)
        if chance.random() < 0.3:
            peers.pop(number, None)
        else:
            mac = f"aa:00:00:00:00:{chance.randrange(40):02x}"
            peers[number] = peer(f"10.5.{number}.0", f"192.168.77.{chance.randrange(12, 52)}", mac)
        step = diff(have.values(), want := plan(list(peers.values())))
        for item in (*step.remove, *(old for old, _ in step.change)):
            assert have.pop(item.key) == item
        have |= {item.key: item for item in (*step.add, *(new for _, new in step.change))}
        assert len({item.key for item in want}) == len(want)
        assert set(have.values()) == want
