"""Renders as iptables rules what the nft table does. Pure.

All rules are in three tables that come before `filter`: what is dropped here is dropped before
Docker's rules could accept it. What may pass goes back, by RETURN and not ACCEPT, to the chain it
came from, where others have rules, too; a chain that is entered by `-g` returns to where its caller
would. The chains are always the same; ports, networks and peers add rules to them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple, get_args

from driver.errors import HostError
from driver.host.firewall.mark import JUDGED
from driver.model.firewall import (
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
    Uplink,
)
from driver.model.objects import HostObject
from driver.model.records import ANY, BRIDGE_PREFIX, HOST_END_PREFIX, Proto, short

Chains = dict[str, list[str]]  # chain → rules as iptables-save writes them, without "-A CHAIN "
Tables = dict[str, Chains]

CHAIN_PREFIX = "DKFLANNEL-"
OURS, OVERLAY = f"{BRIDGE_PREFIX}+", "flannel+"
MARK = "docker-flannel"  # the comment on our jumps
PORTS = range(1, 1 << 16)  # iptables takes 65537 for 1
NAME = re.compile(r"[\w.@:-]{1,15}", re.ASCII)
PROTOS: tuple[Proto, ...] = get_args(Proto)
PARENTS = {
    "raw": {"PREROUTING": "GUARD"},
    "mangle": {
        "PREROUTING": "LOCALHOST",
        "FORWARD": "FORWARD",
        "INPUT": "INPUT",
        "POSTROUTING": "SENT",
    },
    "nat": {"PREROUTING": "PRE", "OUTPUT": "OUTPUT", "POSTROUTING": "POST"},
}
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
ASKING = "-m conntrack --ctdir ORIGINAL"
DNAT = "-m conntrack --ctstate DNAT"
LOCAL = "-m addrtype --dst-type LOCAL"
IS_JUDGED = f"-m mark --mark {JUDGED:#x}/{JUDGED:#x}"
UNMARK = f"{IS_JUDGED} -j MARK --set-xmark 0x0/{JUDGED:#x}"
JUDGE = f"-j MARK --set-xmark {JUDGED:#x}/{JUDGED:#x}"


class PortRule(NamedTuple):
    """The rule of a published port, and where in its protocol's chain it has to be."""

    any_address: bool
    host_ip: int
    host_port: int
    proto: Proto
    text: str


Sets = Mapping[type[FirewallEntry], list[tuple[str, ...]]]  # the identifying fields of entries


def render(objects: Iterable[HostObject], known: dict[PortMap, PortRule] | None = None) -> Tables:
    """Return the chains with their rules, for the entries among the objects.

    `known` keeps the ports' rules, which may be thousands, from one rendering to the next.
    Errors: HostError for an entry with a name or number that iptables cannot take.
    """
    sets: defaultdict[type[FirewallEntry], list[tuple[str, ...]]] = defaultdict(list)
    ports: dict[PortMap, PortRule] = {}
    before = known or {}
    for item in objects:
        if isinstance(item, PortMap):
            ports[item] = before.get(item) or _port_rule(item)
        elif isinstance(item, FirewallEntry):
            _check(item, *item.key[1:])
            sets[type(item)].append(tuple(map(str, item.key[1:])))
    if known is not None:
        known.clear()
        known.update(ports)
    for members in sets.values():
        members.sort()
    return {
        table: {CHAIN_PREFIX + name: rules for name, rules in chains.items()}
        for table, chains in (
            ("raw", _raw(sets)),
            ("mangle", _mangle(sets) | _tunnels(sets)),
            ("nat", _nat(sets) | _ports(ports.values())),
        )
    }


def _check(entry: FirewallEntry, *fields: object) -> None:
    for field in fields:
        if (isinstance(field, str) and not NAME.fullmatch(field)) or (
            isinstance(field, int) and field not in PORTS
        ):
            raise HostError(f"iptables cannot take {field!r} of {entry}")


def _port_rule(port: PortMap) -> PortRule:
    note = short(port.owner) or MARK
    _check(port, port.host_port, port.target_port, note)
    proto, ip = port.proto, port.host_ip
    text = (
        f"{'' if ip == ANY else f'-d {ip}/32 '}-p {proto} -m {proto} --dport {port.host_port} "
        f"-m comment --comment {note} -j DNAT --to-destination {port.target}:{port.target_port}"
    )
    return PortRule(ip == ANY, int(ip), port.host_port, proto, text)


def _ports(rules: Iterable[PortRule]) -> Chains:
    """Publish: a chain per protocol with a rule per port, those of one host address first."""
    chains: Chains = {proto.upper(): [] for proto in PROTOS}
    for rule in sorted(rules):
        chains[rule.proto.upper()].append(rule.text)
    return chains


def _raw(sets: Sets) -> Chains:
    """Drop what the nft table's chains `guard` and `sources` drop."""
    near = [link for (link,) in sets[DirectLink]]
    return {
        "GUARD": [
            f"-i {HOST_END_PREFIX}+ -j DROP",
            *(f"-{side} 127.0.0.0/8 -i {OURS} -j DROP" for side in "ds"),
            *(f"-d {ip}/32 -i {OURS} {_to_port('tcp', at)} -j DROP" for ip, at in sets[EtcdMember]),
            *(f"{_to_port('tcp', at)} {LOCAL} -j {CHAIN_PREFIX}ETCD" for (at,) in sets[LocalEtcd]),
            f"-i {OURS} -g {CHAIN_PREFIX}SOURCES",
            *(
                f"-s {lease} -i {link} -j DROP"
                for (lease,) in sets[LeasePrefix]
                for link in (OVERLAY, *near)
            ),
        ],
        "ETCD": [
            *(f"-i {link} -j DROP" for link in (OURS, OVERLAY)),
            *(f"-s {subnet} -i {link} -j DROP" for (subnet,) in sets[PeerPrefix] for link in near),
        ],
        "SOURCES": [
            *(f"-s {block} -i {bridge} -j RETURN" for block, bridge in sets[SourcePrefix]),
            *(f"-i {bridge} -j RETURN" for (bridge,) in sets[AnySource]),
            *(f"-s {ip}/32 -i {bridge} -j RETURN" for ip, bridge in sets[SourceAddress]),
            "-d 224.0.0.0/4 -j RETURN",
            "-d 255.255.255.255/32 -j RETURN",
            *(f"-i {bridge} {LOCAL} -j DROP" for bridge, _ in sets[BridgePair]),
            *(f"-d {block} -i {bridge} -j RETURN" for block, bridge in sets[SourcePrefix]),
            *(f"-i {bridge} -j DROP" for bridge, _ in sets[BridgePair]),
        ],
    }


def _mangle(sets: Sets) -> Chains:
    """Drop what the nft table's chain `forward` drops, in its order, and mark as it marks."""
    internal = [bridge for (bridge,) in sets[InternalBridge]]
    foreign = [bridge for bridge in sets[ForeignBridge] if bridge not in sets[Uplink]]
    direct = [link for (link,) in sets[DirectLink]]
    return {
        "LOCALHOST": [f"-i {OURS} -m conntrack --ctorigdst 127.0.0.0/8 --ctdir REPLY {JUDGE}"],
        "SENT": [UNMARK],
        "FORWARD": [
            *(f"-{side} {OURS} {JUDGE}" for side in "io"),
            *(
                f"-d {net} -i {OURS} {ASKING} -j {CHAIN_PREFIX}STRAY"
                for (net,) in sets[ClosedPrefix]
            ),
            f"-i {OURS} -o {OURS} -g {CHAIN_PREFIX}BETWEEN",
            ESTABLISHED,
            *(f"{_to_port('udp', port)} -j {CHAIN_PREFIX}FORGED" for (port,) in sets[TunnelPort]),
            f"-i {OURS} -g {CHAIN_PREFIX}OUT",
            f"-o {OURS} -g {CHAIN_PREFIX}IN",
        ],
        "STRAY": [
            *(f"-o {link} -j RETURN" for link in (OURS, OVERLAY, *direct)),
            *(f"-d {prefix} -j RETURN" for (prefix,) in sets[NearPrefix]),
            "-j DROP",
        ],
        "BETWEEN": [
            *(f"-i {one} -o {other} -j RETURN" for one, other in sets[BridgePair]),
            *(f"-s {ip}/32 -i {bridge} -j DROP" for ip, bridge in sets[SourceAddress]),
            ESTABLISHED,
            *(f"-{side} {bridge} -j DROP" for bridge in internal for side in "io"),
            f"{DNAT} -j RETURN",
            "-j DROP",
        ],
        "OUT": [
            *(f"-i {bridge} -j DROP" for bridge in internal),
            f"-o {OVERLAY} -j RETURN",
            "-m conntrack --ctstate INVALID -j DROP",
            f"{DNAT} -j RETURN",
            *(f"-o {bridge} -j DROP" for (bridge,) in foreign),
        ],
        "IN": [
            *(f"-o {bridge} -j DROP" for bridge in internal),
            f"-i {OVERLAY} -j RETURN",
            *(f"-i {link} -g {CHAIN_PREFIX}PEERS" for link in direct),
            f"{DNAT} -j RETURN",
            "-j DROP",
        ],
        "PEERS": [
            *(f"-s {subnet} -j RETURN" for (subnet,) in sets[PeerPrefix]),
            *(f"-s {ip}/32 -j RETURN" for (ip,) in sets[PeerAddress]),
            f"{DNAT} -j RETURN",
            "-j DROP",
        ],
    }


def _tunnels(sets: Sets) -> Chains:
    """Drop frames of an overlay that come from containers, as the nft chain `forged` does."""
    ports = [_to_port("udp", port) for (port,) in sets[TunnelPort]]
    local = [OURS, *(bridge for (bridge,) in sets[ForeignBridge] if (bridge,) not in sets[Uplink])]
    return {
        "INPUT": [
            UNMARK,
            *(
                rule
                for port in ports
                for rule in (
                    f"-i {OVERLAY} {port} -j DROP",
                    f"{port} -j {CHAIN_PREFIX}FORGED",
                    f"! -d 224.0.0.0/4 {port} -m pkttype --pkt-type multicast -j DROP",
                )
            ),
        ],
        "FORGED": [
            *(f"-o {bridge} -j RETURN" for bridge in local),
            *(f"-i {bridge} -j DROP" for bridge in local if (bridge,) not in sets[Carrier]),
        ],
    }


def _to_port(proto: str, port: str) -> str:
    return f"-p {proto} -m {proto} --dport {port}"


def _nat(sets: Sets) -> Chains:
    """Translate where the nft table's chains `nat_pre`, `nat_out` and `nat_post` do."""
    overlay = [prefix for (prefix,) in sets[OverlayPrefix]]
    masquerade = "-j MASQUERADE --random-fully"
    return {
        "PRE": ["-d 127.0.0.0/8 -j RETURN", f"{LOCAL} -j {CHAIN_PREFIX}PUBLISH"],
        "OUTPUT": [f"{LOCAL} -j {CHAIN_PREFIX}PUBLISH"],
        "POST": [
            f"-s 127.0.0.0/8 -o {OURS} {DNAT} -j MASQUERADE",
            f"{DNAT} -j {CHAIN_PREFIX}HAIR",
            f"-o {OURS} -j RETURN",
            f"-j {CHAIN_PREFIX}DOCKER",
            f"-j {CHAIN_PREFIX}LEAVE",
            f"-o {OVERLAY} -j {CHAIN_PREFIX}ENTER",
        ],
        "HAIR": [f"-s {block} -o {bridge} -j MASQUERADE" for block, bridge in sets[SourcePrefix]],
        "DOCKER": [
            "-d 224.0.0.0/4 -j RETURN",
            *(f"-s {subnet} {masquerade}" for (subnet,) in sets[DockerMasquerade]),
        ],
        "LEAVE": [
            *(f"-d {prefix} -j RETURN" for prefix in [*overlay, "224.0.0.0/4"]),
            *(f"-s {block} {masquerade}" for (block,) in sets[Masquerade]),
        ],
        "ENTER": [
            *(f"-s {prefix} -j RETURN" for prefix in overlay),
            *(f"-d {prefix} {masquerade}" for prefix in overlay),
        ],
        "PUBLISH": [f"-p {proto} -j {CHAIN_PREFIX}{proto.upper()}" for proto in PROTOS],
    }
