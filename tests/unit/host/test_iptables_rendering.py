"""The iptables rules of the fallback."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.core import firewall
from driver.errors import HostError
from driver.host.firewall.iptables_rendering import CHAIN_PREFIX, ESTABLISHED, PARENTS, render
from driver.model.firewall import (
    ENTRIES,
    AnySource,
    BridgePair,
    Carrier,
    ClosedPrefix,
    DirectLink,
    DockerMasquerade,
    EtcdMember,
    FirewallEntry,
    ForeignBridge,
    InternalBridge,
    LeasePrefix,
    LocalEtcd,
    Masquerade,
    NearPrefix,
    OverlayPrefix,
    PeerAddress,
    PeerPrefix,
    PortMap,
    SourceAddress,
    SourcePrefix,
    TunnelPort,
    UnknownEntry,
    Uplink,
)
from driver.model.objects import HostObject
from driver.model.records import ANY, replace
from tests.unit.iptables_sample import FACTS, objects
from tests.unit.sample import DNS, END, LEASE, NET, OTHER, endpoint

BRIDGE, INNER = f"fl-{NET[:12]}", f"fl-{OTHER[:12]}"


def chain(name: str, given: list[HostObject]) -> list[str]:
    [found] = [c[CHAIN_PREFIX + name] for c in render(given).values() if CHAIN_PREFIX + name in c]
    return found


NETWORK, IP = IPv4Network("10.77.0.0/24"), IPv4Address("192.0.2.77")
ONE_OF_EACH = [
    PortMap("tcp", ANY, 77, IP, 77),
    BridgePair("fl-77", "fl-77"),
    SourcePrefix(NETWORK, "fl-77"),
    SourceAddress(IP, "fl-77"),
    AnySource("fl-77"),
    InternalBridge("fl-77"),
    Masquerade(NETWORK),
    DockerMasquerade(NETWORK),
    OverlayPrefix(NETWORK),
    LeasePrefix(NETWORK),
    ClosedPrefix(NETWORK),
    NearPrefix(NETWORK),
    DirectLink("eth77"),
    PeerPrefix(NETWORK),
    PeerAddress(IP),
    EtcdMember(IP, 77),
    LocalEtcd(77),
    Uplink("docker0"),
    Carrier("docker0"),
    TunnelPort(77),
    ForeignBridge("br77"),
]


def test_every_entry_makes_a_difference() -> None:
    base = [*objects(), TunnelPort(8472)]
    assert {type(entry) for entry in ONE_OF_EACH} == {*ENTRIES} - {UnknownEntry}
    for entry in ONE_OF_EACH:
        assert render([*base, entry]) != render(base), entry


def test_without_elements_all_chains_are_there() -> None:
    empty = render([])
    assert empty.keys() == PARENTS.keys()
    for table, parents in PARENTS.items():
        assert {CHAIN_PREFIX + name for name in parents.values()} <= empty[table].keys()
        named = {n for found in empty[table].values() for r in found for n in targets(r)}
        assert named <= empty[table].keys(), "a rule leads nowhere"
    assert {table: chains.keys() for table, chains in render(objects()).items()} == {
        table: chains.keys() for table, chains in empty.items()
    }


def targets(rule: str) -> list[str]:
    return re.findall(rf"-[jg] ({CHAIN_PREFIX}\w+)$", rule)


def test_names_fit() -> None:
    assert all(len(name) <= 28 for chains in render([]).values() for name in chains)


def test_a_port_is_a_rule_and_one_of_an_address_goes_first() -> None:
    assert chain("TCP", objects()) == [
        "-p tcp -m tcp --dport 8080 -m comment --comment dddddddddddd "
        "-j DNAT --to-destination 10.2.3.2:80"
    ]
    assert chain("UDP", objects()) == [
        "-d 192.168.1.5/32 -p udp -m udp --dport 53 -m comment --comment dddddddddddd "
        "-j DNAT --to-destination 10.2.3.2:5353"
    ]
    everywhere = replace(DNS, host_ip=IPv4Address(0), host_port=1)
    both = chain("UDP", [*firewall.plan_ports(endpoint(END, ports=(everywhere, DNS)))])
    assert [rule.partition(" ")[0] for rule in both] == ["-d", "-p"]


def test_only_one_address_translates_127() -> None:
    """What comes for 127.0.0.0/8 from elsewhere is no business of the ports."""
    assert chain("PRE", [])[0] == "-d 127.0.0.0/8 -j RETURN"
    assert not any("127" in rule for rule in chain("OUTPUT", []))


def test_what_may_be_forwarded() -> None:
    assert chain("BETWEEN", objects()) == [
        f"-i {BRIDGE} -o {BRIDGE} -j RETURN",
        f"-i {INNER} -o {INNER} -j RETURN",
        ESTABLISHED,
        f"-i {INNER} -j DROP",
        f"-o {INNER} -j DROP",
        "-m conntrack --ctstate DNAT -j RETURN",
        "-j DROP",
    ]
    assert chain("OUT", objects()) == [
        f"-i {INNER} -j DROP",
        "-o flannel+ -j RETURN",
        "-m conntrack --ctstate INVALID -j DROP",
        "-m conntrack --ctstate DNAT -j RETURN",
        "-o docker0 -j DROP",
    ]
    assert chain("IN", objects()) == [
        f"-o {INNER} -j DROP",
        "-i flannel+ -j RETURN",
        f"-i eth0 -g {CHAIN_PREFIX}PEERS",
        "-m conntrack --ctstate DNAT -j RETURN",
        "-j DROP",
    ]
    assert chain("PEERS", objects())[:2] == [
        "-s 10.2.9.0/24 -j RETURN",
        "-s 192.0.2.12/32 -j RETURN",
    ]
    assert chain("GUARD", objects())[-2:] == [
        f"-s 10.2.3.0/24 -i {link} -j DROP" for link in ("flannel+", "eth0")
    ]


def test_frames_of_the_overlay_are_taken_from_nobody_here() -> None:
    given = [*objects(), TunnelPort(8472), ForeignBridge("virbr0")]
    to_port = "-p udp -m udp --dport 8472"
    assert chain("INPUT", given)[1:] == [
        f"-i flannel+ {to_port} -j DROP",
        f"{to_port} -j {CHAIN_PREFIX}FORGED",
        f"! -d 224.0.0.0/4 {to_port} -m pkttype --pkt-type multicast -j DROP",
    ]
    assert chain("FORWARD", given)[4] == f"{to_port} -j {CHAIN_PREFIX}FORGED"
    local = "fl-+", "docker0", "virbr0"
    stays = [f"-o {bridge} -j RETURN" for bridge in local]
    assert chain("FORGED", given) == stays + [f"-i {bridge} -j DROP" for bridge in local]
    given += [Carrier("virbr0"), Uplink("docker0")]
    assert chain("FORGED", given)[-2:] == ["-o virbr0 -j RETURN", "-i fl-+ -j DROP"]


def test_who_may_send_with_which_address() -> None:
    given = [AnySource(INNER), SourceAddress(IPv4Address("10.2.9.9"), BRIDGE)]
    own = [f"10.2.3.0/27 -i {bridge} -j RETURN" for bridge in (BRIDGE, INNER)]
    assert chain("SOURCES", [*objects(), *given]) == [
        *(f"-s {rule}" for rule in own),
        f"-i {INNER} -j RETURN",
        f"-s 10.2.9.9/32 -i {BRIDGE} -j RETURN",
        "-d 224.0.0.0/4 -j RETURN",
        "-d 255.255.255.255/32 -j RETURN",
        *(f"-i {bridge} -m addrtype --dst-type LOCAL -j DROP" for bridge in (BRIDGE, INNER)),
        *(f"-d {rule}" for rule in own),
        *(f"-i {bridge} -j DROP" for bridge in (BRIDGE, INNER)),
    ]
    between = chain("BETWEEN", [*objects(), *given])
    assert between[2:4] == [f"-s 10.2.9.9/32 -i {BRIDGE} -j DROP", ESTABLISHED]


def test_a_bridge_that_leads_out_may_be_left_by() -> None:
    assert "-o docker0 -j DROP" not in chain("OUT", [*objects(), Uplink("docker0")])


def test_who_is_masqueraded() -> None:
    assert chain("HAIR", objects()) == [
        f"-s 10.2.3.0/27 -o {bridge} -j MASQUERADE" for bridge in (BRIDGE, INNER)
    ]
    assert chain("LEAVE", objects()) == [
        "-d 10.2.0.0/16 -j RETURN",
        "-d 224.0.0.0/4 -j RETURN",
        "-s 10.2.3.0/27 -j MASQUERADE --random-fully",
    ]
    assert chain("ENTER", objects()) == [
        "-s 10.2.0.0/16 -j RETURN",
        "-d 10.2.0.0/16 -j MASQUERADE --random-fully",
    ]


def test_a_subnet_of_docker_s_is_masqueraded_even_to_other_hosts() -> None:
    assert chain("DOCKER", [DockerMasquerade(IPv4Network("172.18.0.0/16"))]) == [
        "-d 224.0.0.0/4 -j RETURN",
        "-s 172.18.0.0/16 -j MASQUERADE --random-fully",
    ]
    post = chain("POST", [])
    assert post.index("-j DKFLANNEL-DOCKER") < post.index("-j DKFLANNEL-LEAVE")


def test_nft_needs_no_names_of_bridges() -> None:
    planned = firewall.plan_base(LEASE, None, replace(FACTS, firewall="nft"))
    assert not any(isinstance(t, ForeignBridge) for t in planned)


@pytest.mark.parametrize(
    "bad",
    [
        DirectLink("eth0 -j ACCEPT"),
        DirectLink("eth0\nCOMMIT"),
        DirectLink(""),
        DirectLink("sixteencharacter"),
        BridgePair("fl-a", "fl-b;"),
        EtcdMember(IPv4Address("192.0.2.9"), 0),
        TunnelPort(70000),
        PortMap("tcp", ANY, 65536, IPv4Address("10.2.0.2"), 80),
        PortMap("tcp", ANY, 0, IPv4Address("10.2.0.2"), 80),
        PortMap("tcp", ANY, 80, IPv4Address("10.2.0.2"), 70000),
        PortMap("tcp", ANY, 80, IPv4Address("10.2.0.2"), 80, owner="a b"),
    ],
)
def test_nonsense_is_refused(bad: FirewallEntry) -> None:
    with pytest.raises(HostError) as caught:
        render([bad])
    assert "iptables" in str(caught.value)
