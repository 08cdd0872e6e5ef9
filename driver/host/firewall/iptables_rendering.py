"""What the nft table does, as iptables rules. Pure.

It is given the same objects: the table stands for the chains, an element for rules in them. All is
in three tables, and none of it in `filter`, which comes after them: what is dropped here is
dropped before Docker's rules accept it, wherever those are. What may pass goes back, by RETURN
and not ACCEPT, to the chain it came from, where others have rules, too; a chain that is entered by
`-g` goes back to where its caller would. The chains are always the same; ports, networks and peers
add rules to them. Imports `rules`, `iptables_ports` and the nouns.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network

from driver.core.firewall import JUDGED, PROTOS
from driver.core.peer_rules import USUAL
from driver.errors import HostError
from driver.host.firewall.iptables_ports import MARK, NAME, PORTS, PortRule, port_rule, published
from driver.model.objects import Element, HostObject
from driver.model.records import BRIDGE_PREFIX, HOST_END_PREFIX

Chains = dict[str, list[str]]  # chain → rules as iptables-save writes them, without "-A CHAIN "
Tables = dict[str, Chains]

CHAIN_PREFIX = "DKFLANNEL-"
OURS, OVERLAY = f"{BRIDGE_PREFIX}+", "flannel+"
SETS = {"uplinks", "foreign", "direct", "peers4", "internal", "pair"}
SETS |= {"own4", "lease4", "over4", "docker4", "carriers", "tunnels", "also4", "anysource"}
SETS |= {"closed4", "near4", "direct4", "direct24", "home4", "etcd4", "etcd_here"}
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

_COMMENT = re.compile(r'-m comment --comment (?:"(?:[^"\\]|\\.)*"|\S+) ')
_END = re.compile(r"-j (?:ACCEPT|DROP|REJECT|RETURN)\b")  # without a condition: nothing follows


def leads(chains: Chains, chain: str, target: str) -> bool:
    """Tell whether a chain hands every packet to a target, rather than ending before."""
    for rule in chains.get(chain, ()):
        plain = _COMMENT.sub("", rule)
        if plain == f"-j {target}":
            return True
        if _END.match(plain):
            return False
    return False


def jump(target: str) -> str:
    """Give the rule by which a chain of somebody else hands every packet to one of ours."""
    return f"-m comment --comment {MARK} -j {target}"


def unjump(chains: Chains, target: str) -> Iterator[str]:
    """Give the commands that take away others' chains' jumps to chains that match `target`."""
    leading = re.compile(rf"-[jg] {target}$")
    for name, rules in chains.items():
        if not name.startswith(CHAIN_PREFIX):
            yield from (f"-D {name} {rule}" for rule in rules if leading.search(rule))


def render(objects: Iterable[HostObject], known: dict[Element, PortRule] | None = None) -> Tables:
    """Give the chains with their rules, for the elements among the objects.

    `known` keeps the ports' rules, which may be thousands, from one rendering to the next.
    Errors: HostError for an element of no known set, or with what is no name or prefix.
    """
    elements: defaultdict[str, list[Element]] = defaultdict(list)
    ports: dict[Element, PortRule] = {}
    before = known or {}
    for item in objects:
        if isinstance(item, Element):
            if port := before.get(item) or port_rule(item):
                ports[item] = port
            elif item.set in SETS:
                elements[item.set].append(item)
            else:
                raise HostError(f"iptables has no rules for the set {item.set!r}")
    if known is not None:
        known.clear()
        known.update(ports)
    fields = {name: sorted(map(_fields, members)) for name, members in elements.items()}
    sets = defaultdict(list, fields)
    return {
        table: {CHAIN_PREFIX + name: rules for name, rules in chains.items()}
        for table, chains in (
            ("raw", _raw(sets)),
            ("mangle", _mangle(sets) | _tunnels(sets)),
            ("nat", _nat(sets) | published(ports.values())),
        )
    }


def _fields(element: Element) -> tuple[str, ...]:
    fields = tuple(field.strip('"') for field in element.at.split(" . "))
    for quoted, field in zip(element.at.split(" . "), fields, strict=True):
        try:
            if quoted.startswith('"'):
                good = bool(NAME.fullmatch(field))
            elif field.isdecimal():
                good = int(field) in PORTS
            else:
                good = bool(IPv4Network(field))
        except ValueError:
            good = False
        if not good:
            raise HostError(f"iptables cannot have {element.at!r} in the set {element.set}")
    return fields


Sets = Mapping[str, list[tuple[str, ...]]]


def _raw(sets: Sets) -> Chains:
    """Drop what the nft table's chains `guard` and `sources` drop."""
    near = [link for (link,) in sets["direct"]]
    return {
        "GUARD": [
            f"-i {HOST_END_PREFIX}+ -j DROP",
            *(f"-{side} 127.0.0.0/8 -i {OURS} -j DROP" for side in "ds"),
            *(f"-d {ip}/32 -i {OURS} {_to_port('tcp', at)} -j DROP" for ip, at in sets["etcd4"]),
            *(
                f"{_to_port('tcp', at)} {LOCAL} -j {CHAIN_PREFIX}ETCD"
                for (at,) in sets["etcd_here"]
            ),
            f"-i {OURS} -g {CHAIN_PREFIX}SOURCES",
            *(
                f"-s {lease} -i {link} -j DROP"
                for (lease,) in sets["home4"]
                for link in (OVERLAY, *near)
            ),
        ],
        "ETCD": [
            *(f"-i {link} -j DROP" for link in (OURS, OVERLAY)),
            *(f"-s {subnet} -i {link} -j DROP" for subnet in _of_peers(sets) for link in near),
        ],
        "SOURCES": [
            *(f"-s {block} -i {bridge} -j RETURN" for block, bridge in sets["own4"]),
            *(f"-i {bridge} -j RETURN" for (bridge,) in sets["anysource"]),
            *(f"-s {ip}/32 -i {bridge} -j RETURN" for ip, bridge in sets["also4"]),
            "-d 224.0.0.0/4 -j RETURN",
            "-d 255.255.255.255/32 -j RETURN",
            *(f"-i {bridge} {LOCAL} -j DROP" for bridge, _ in sets["pair"]),
            *(f"-d {block} -i {bridge} -j RETURN" for block, bridge in sets["own4"]),
            *(f"-i {bridge} -j DROP" for bridge, _ in sets["pair"]),
        ],
    }


def _mangle(sets: Sets) -> Chains:
    """Drop what the nft table's chain `forward` drops, in its order, and mark as it marks."""
    internal = [bridge for (bridge,) in sets["internal"]]
    foreign = [bridge for bridge in sets["foreign"] if bridge not in sets["uplinks"]]
    direct = [link for (link,) in sets["direct"]]
    return {
        "LOCALHOST": [f"-i {OURS} -m conntrack --ctorigdst 127.0.0.0/8 --ctdir REPLY {JUDGE}"],
        "SENT": [UNMARK],
        "FORWARD": [
            *(f"-{side} {OURS} {JUDGE}" for side in "io"),
            *(f"-d {net} -i {OURS} {ASKING} -j {CHAIN_PREFIX}STRAY" for (net,) in sets["closed4"]),
            f"-i {OURS} -o {OURS} -g {CHAIN_PREFIX}BETWEEN",
            ESTABLISHED,
            *(f"{_to_port('udp', port)} -j {CHAIN_PREFIX}FORGED" for (port,) in sets["tunnels"]),
            f"-i {OURS} -g {CHAIN_PREFIX}OUT",
            f"-o {OURS} -g {CHAIN_PREFIX}IN",
        ],
        "STRAY": [
            *(f"-o {link} -j RETURN" for link in (OURS, OVERLAY, *direct)),
            *(f"-d {prefix} -j RETURN" for (prefix,) in sets["near4"]),
            "-j DROP",
        ],
        "BETWEEN": [
            *(f"-i {one} -o {other} -j RETURN" for one, other in sets["pair"]),
            *(f"-s {ip}/32 -i {bridge} -j DROP" for ip, bridge in sets["also4"]),
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
            *(f"-s {subnet} -j RETURN" for subnet in _of_peers(sets)),
            *(f"-s {ip}/32 -j RETURN" for (ip,) in sets["peers4"]),
            f"{DNAT} -j RETURN",
            "-j DROP",
        ],
    }


def _of_peers(sets: Sets) -> list[str]:
    usual = [f"{address}/{USUAL}" for (address,) in sets["direct24"]]
    return usual + [subnet for (subnet,) in sets["direct4"]]


def _tunnels(sets: Sets) -> Chains:
    """Drop frames of an overlay that come from containers, as the nft chain `forged` does."""
    ports = [_to_port("udp", port) for (port,) in sets["tunnels"]]
    local = [OURS, *(bridge for (bridge,) in sets["foreign"] if (bridge,) not in sets["uplinks"])]
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
            *(f"-i {bridge} -j DROP" for bridge in local if (bridge,) not in sets["carriers"]),
        ],
    }


def _to_port(proto: str, port: str) -> str:
    return f"-p {proto} -m {proto} --dport {port}"


def _nat(sets: Sets) -> Chains:
    """Translate where the nft table's chains `nat_pre`, `nat_out` and `nat_post` do."""
    overlay = [prefix for (prefix,) in sets["over4"]]
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
        "HAIR": [f"-s {block} -o {bridge} -j MASQUERADE" for block, bridge in sets["own4"]],
        "DOCKER": [
            "-d 224.0.0.0/4 -j RETURN",
            *(f"-s {subnet} {masquerade}" for (subnet,) in sets["docker4"]),
        ],
        "LEAVE": [
            *(f"-d {prefix} -j RETURN" for prefix in [*overlay, "224.0.0.0/4"]),
            *(f"-s {block} {masquerade}" for (block,) in sets["lease4"]),
        ],
        "ENTER": [
            *(f"-s {prefix} -j RETURN" for prefix in overlay),
            *(f"-d {prefix} {masquerade}" for prefix in overlay),
        ],
        "PUBLISH": [f"-p {proto} -j {CHAIN_PREFIX}{proto.upper()}" for proto in PROTOS],
    }
