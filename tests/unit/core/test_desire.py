"""What the host should carry, object by object, and what is stored but dead."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from driver.core.desire import STALE_S, desire, stale
from driver.model import firewall as rules
from driver.model.facts import ETCD, OWN, External, Facts
from driver.model.objects import (
    Bridge,
    HostObject,
    LinkAddress,
    LoopbackGuard,
    PortSocket,
    Sysctl,
    UnreachableRoute,
    Veth,
    diff,
)
from driver.model.records import ANY, Record, replace
from tests.unit.fakes import FACTS, seeded
from tests.unit.sample import (
    DNS,
    END,
    END2,
    LEASE,
    NET,
    NOW,
    OTHER,
    OVERLAY,
    POOL,
    WEB,
    endpoint,
    hold,
    network,
    pool,
    state_of,
)

BRIDGE = "fl-aaaaaaaaaaaa"
OURS = rules.SourcePrefix(IPv4Network("10.2.3.0/27"), BRIDGE, owner=NET)
PAIR = rules.BridgePair(BRIDGE, BRIDGE, owner=NET)
BASE: list[HostObject] = [
    UnreachableRoute(IPv4Network("10.2.3.0/24")),
    rules.Ruleset(),
    rules.ClosedPrefix(IPv4Network("10.2.0.0/16")),
    rules.OverlayPrefix(IPv4Network("10.2.0.0/16")),
    rules.LeasePrefix(IPv4Network("10.2.3.0/24")),
    rules.Uplink("br-lan"),
    rules.ForwardGate("nft"),
    Sysctl("all", "ipv4", "forwarding", "1"),
]
LINKS: list[HostObject] = [
    Bridge(BRIDGE, "02:66:ff:e0:54:fe", 1450, NET),
    LinkAddress(BRIDGE, IPv4Interface("10.2.3.1/27")),
    Sysctl(BRIDGE, "ipv6", "disable_ipv6", "1"),
    Sysctl(BRIDGE, "ipv4", "forwarding", "1"),
    PAIR,
    OURS,
    LoopbackGuard(BRIDGE, False),
]
OUTWARD: list[HostObject] = [rules.Masquerade(IPv4Network("10.2.3.0/27"), owner=NET)]
VETH = Veth("flhcccccccccccc", BRIDGE, 1450, False, END, "flccccccccccccc", "02:42:0a:02:03:02")
PORTS: list[HostObject] = [
    PortSocket("tcp", IPv4Address(0), 8080, END),
    rules.PortMap("tcp", ANY, 8080, IPv4Address("10.2.3.2"), 80, END),
    PortSocket("udp", IPv4Address("192.168.1.5"), 53, END),
    rules.PortMap("udp", IPv4Address("192.168.1.5"), 53, IPv4Address("10.2.3.2"), 5353, END),
]


@pytest.mark.parametrize(
    ("records", "objects"),
    [
        ([], []),
        ([LEASE, POOL, hold("10.2.3.1", "gateway")], []),
        ([network()], []),
        ([LEASE, network()], BASE + LINKS + OUTWARD),
        ([LEASE, network(masquerade=False)], [*BASE, *LINKS]),
        (
            [LEASE, network(internal=True)],
            [*BASE, *LINKS, rules.InternalBridge(BRIDGE, owner=NET)],
        ),
        (
            [LEASE, network(masquerade=False, any_source=True)],
            [*BASE, *LINKS, rules.AnySource(BRIDGE, owner=NET)],
        ),
        ([LEASE, network(), endpoint()], [*BASE, *LINKS, *OUTWARD, VETH]),
        (
            [LEASE, network(), endpoint(ports=(WEB, DNS))],
            [*BASE, *LINKS[:-1], LoopbackGuard(BRIDGE, True), *OUTWARD, replace(VETH, hairpin=True),
             *PORTS],
        ),
    ],
    ids=["nothing", "no network", "no lease", "plain", "no masquerade", "internal", "any source",
         "endpoint", "ports"],
)  # fmt: skip
def test_exactly_these_objects(records: list[Record], objects: list[HostObject]) -> None:
    assert desire(state_of(*records), FACTS) == frozenset(objects)


def test_the_container_end_is_made_with_its_name_and_mac() -> None:
    (veth,) = (t for t in desire(state_of(LEASE, network(), endpoint()), FACTS)
               if isinstance(t, Veth))  # fmt: skip
    assert (veth.container_end, veth.mac) == ("flccccccccccccc", "02:42:0a:02:03:02")
    assert len(veth.container_end) == len(veth.name) == 15


@pytest.mark.parametrize(
    ("ip", "guards", "routed"),
    [
        ("0.0.0.0", True, True),
        ("127.0.0.1", True, True),
        ("127.9.9.9", True, True),
        ("192.168.1.5", True, False),
        ("0.0.0.0", False, False),
    ],
)
def test_localhost_leads_to_a_bridge_only_for_a_port_and_behind_a_guard(
    ip: str, guards: bool, routed: bool
) -> None:
    ends = [endpoint(ports=(replace(WEB, host_ip=IPv4Address(ip)),)), endpoint(END2, "10.2.3.3/27")]
    got = desire(state_of(LEASE, network(), *ends), replace(FACTS, guards=guards))
    assert {t for t in got if isinstance(t, LoopbackGuard)} == {LoopbackGuard(BRIDGE, routed)}


def test_every_gate_and_every_uplink_is_there() -> None:
    facts = Facts(uplinks=frozenset({"br0", "br1"}), gates=frozenset({"nft", "legacy"}))
    got = desire(state_of(LEASE, network()), facts)
    assert {t for t in got if isinstance(t, rules.ForwardGate)} == {
        rules.ForwardGate("nft"),
        rules.ForwardGate("legacy"),
    }
    got = desire(state_of(LEASE, network()), replace(facts, bridged=True))
    assert {t for t in got if isinstance(t, rules.ForwardGate)} == {
        rules.ForwardGate("nft", True),
        rules.ForwardGate("legacy", True),
    }
    assert {t for t in got if isinstance(t, rules.Uplink)} == {
        rules.Uplink("br0"),
        rules.Uplink("br1"),
    }


def test_bridges_of_two_networks_have_two_macs_that_stay() -> None:
    got = desire(state_of(LEASE, network(), network(OTHER, gateway=IPv4Interface("10.2.3.33/27"))),
                 FACTS)  # fmt: skip
    macs = {t.name: t.mac for t in got if isinstance(t, Bridge)}
    assert len(set(macs.values())) == 2
    assert macs[BRIDGE] == "02:66:ff:e0:54:fe"


@pytest.mark.parametrize("seed", range(6))
def test_a_slice_of_touched_ids_differs_as_the_whole_does(seed: int) -> None:
    rng = seeded(seed)

    apart = network(OTHER, gateway=IPv4Interface("10.2.3.33/27"))

    def some() -> list[Record]:
        nets = [net for net in (network(), apart) if rng.random() < 0.8]
        ends = [
            endpoint(
                str(i) * 64,
                f"10.2.3.{rng.randint(2, 4) + 4 * i}/27",
                network=rng.choice(nets).id,
                sandbox=rng.choice([None, "/one", "/other"]),
                ports=(replace(WEB, host_port=8000 + i),)[: rng.randint(0, 1)],
            )
            for i in range(4)
            if nets and rng.random() < 0.6
        ]
        return [LEASE, *nets, *ends]

    for _ in range(20):
        old, new = state_of(*some()), state_of(*some())
        nets = {i for i in {*old.networks, *new.networks}
                if old.networks.get(i) != new.networks.get(i)}  # fmt: skip
        ends = {i for i in {*old.endpoints, *new.endpoints}
                if old.endpoints.get(i) != new.endpoints.get(i)}  # fmt: skip
        nets |= {of[i].network for of in (old.endpoints, new.endpoints) for i in ends & of.keys()}
        some_or_none = bool(old.networks) != bool(new.networks)
        sliced = diff(*(desire(s, FACTS, nets, ends, shared=some_or_none) for s in (old, new)))
        assert sliced == diff(desire(old, FACTS), desire(new, FACTS))


def test_forwarding_is_left_to_the_administrator_where_it_is() -> None:
    facts = replace(FACTS, forwarding=False, forwards=False)
    found = desire(state_of(LEASE, network()), facts)
    assert not [t for t in found if isinstance(t, Sysctl) and t.name == "forwarding"]


def test_a_slice_of_nothing_is_what_networks_share() -> None:
    state = state_of(LEASE, network(), endpoint())
    assert desire(state, FACTS, [], []) == frozenset(BASE)
    assert desire(state, FACTS, ["unknown"], ["unknown"]) == frozenset(BASE)


def joined(**changes: Any) -> Record:
    return endpoint(sandbox="/run/x", **changes)


ALIVE = frozenset({BRIDGE, "flhcccccccccccc"})
OLD = NOW - STALE_S - 1
LOST = "endpoint cccccccccccc lost its veth with its sandbox"
ENDED = "endpoint cccccccccccc has no sandbox any more"


@pytest.mark.parametrize(
    ("records", "links", "reasons"),
    [
        ([endpoint()], ALIVE, []),
        ([endpoint(since=OLD)], ALIVE, ["endpoint cccccccccccc was never joined"]),
        ([endpoint(since=OLD + 1)], ALIVE, []),
        ([joined(since=OLD)], ALIVE, []),
        ([joined()], frozenset({BRIDGE}), [LOST]),
        ([joined(since=OLD)], ALIVE | {"flccccccccccccc"}, [ENDED]),
        ([joined()], ALIVE | {"flccccccccccccc"}, []),
        ([network(pool="gone")], ALIVE, ["network aaaaaaaaaaaa was given up by Docker"]),
        ([network(pool="gone"), joined(since=OLD)], ALIVE, []),
        ([hold("10.2.3.2", since=OLD)], ALIVE, ["address 10.2.3.2 was asked for and not used"]),
        ([hold("10.2.3.2", since=OLD + 1)], ALIVE, []),
        ([hold("10.2.3.2", since=OLD), joined()], ALIVE, []),
        ([hold("10.2.3.2", "gateway", since=OLD)], ALIVE, []),
        ([hold("10.2.3.2", "aux", since=OLD)], ALIVE, []),
        ([hold("10.2.3.40", of="another", since=OLD)], ALIVE, []),
        ([pool("10.2.3.64/27", since=OLD)], ALIVE,
         ["block 10.2.3.64/27 was asked for and not used"]),
        ([pool("10.2.3.64/27", since=OLD + 1)], ALIVE, []),
        ([pool("10.2.3.64/27", "x", since=OLD), hold("10.2.3.65", of="10.2.3.64/27/x")], ALIVE, []),
    ],
)  # fmt: skip
def test_what_is_stored_but_dead(
    records: list[Record], links: frozenset[str], reasons: list[str]
) -> None:
    state = state_of(LEASE, POOL, network(), *records)
    assert [why for _, why in stale(state, links, frozenset(), NOW)] == reasons


def test_several_are_dead_at_once() -> None:
    dead = [joined(), endpoint(END2, "10.2.3.3/27", since=OLD), pool("10.2.3.64/27", since=OLD)]
    found = [record for record, _ in stale(state_of(LEASE, POOL, network(), *dead), ALIVE - {
        "flhcccccccccccc"}, frozenset(), NOW)]  # fmt: skip
    assert found == dead


def test_containers_are_kept_from_etcd() -> None:
    here, there = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
    uses = Facts(
        etcd=frozenset({(here, 2379), (there, 4001), (IPv4Address("127.0.0.1"), 2380)}),
        places=((here, OWN), (there, ETCD)),
    )
    got = desire(state_of(LEASE, network()), uses)
    assert {t for t in got if isinstance(t, rules.EtcdMember | rules.LocalEtcd)} == {
        *(rules.EtcdMember(*place) for place in uses.etcd),
        rules.LocalEtcd(2379),
        rules.LocalEtcd(2380),
    }


def test_the_overlays_ports_and_the_bridges_that_carry_it() -> None:
    uses = Facts(
        tunnels=frozenset({4789}),
        foreign=frozenset({"docker0", "virbr0", "virbr1"}),
        carriers=frozenset({"virbr0"}),
        external=External("virbr1", IPv4Address("192.0.2.1"), 1500),
    )
    got = desire(state_of(LEASE, OVERLAY, network()), uses)
    assert {t for t in got if isinstance(t, rules.TunnelPort | rules.Carrier)} == {
        rules.TunnelPort(8472),
        rules.TunnelPort(4789),
        rules.Carrier("virbr0"),
        rules.Carrier("virbr1"),
    }


def test_a_container_answers_with_its_addresses_of_other_networks() -> None:
    two = network(OTHER, gateway=IPv4Interface("10.2.3.33/27"))
    ends = [
        endpoint(sandbox="/one"),
        endpoint(END2, "10.2.3.34/27", network=OTHER, sandbox="/one"),
        endpoint("e" * 64, "10.2.3.35/27", network=OTHER, sandbox="/other"),
        endpoint("9" * 64, "10.2.3.36/27", network=OTHER),
    ]

    def also(*records: Record) -> set[HostObject]:
        got = desire(state_of(LEASE, network(), *records), FACTS)
        return {t for t in got if isinstance(t, rules.SourceAddress)}

    assert also(two, *ends) == {
        rules.SourceAddress(IPv4Address("10.2.3.2"), f"fl-{OTHER[:12]}", owner=END),
        rules.SourceAddress(IPv4Address("10.2.3.34"), BRIDGE, owner=END2),
    }
    assert also(replace(two, internal=True), *ends) == set()
