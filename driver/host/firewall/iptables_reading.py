"""What iptables rules of an earlier run tell of networks and ports. Pure.

The reverse of `iptables_rules` and `iptables_ports`, for what is taken over from the host. Imports
the nouns.
"""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from driver.model.objects import Element, HostObject, Table

Tables = dict[str, dict[str, list[str]]]  # as `iptables_rules` has them

CHAIN = "DKFLANNEL-"
PORTS = ("TCP", "UDP", "SCTP")
PORT = re.compile(
    r"(?:-d (?P<ip>[\d.]+)/32 )?-p (?P<proto>\w+) -m \w+ --dport (?P<number>\d+) "
    r'-m comment --comment "?(?P<owner>[\w.-]+)"? '
    r"-j DNAT --to-destination (?P<target>[\d.]+):(?P<port>\d+)"
)
PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
NONE = bytes(4)  # a mask that leaves nothing
# of a legacy rule: source, destination, their masks, interfaces, between them masks, protocol;
_HEAD = struct.Struct("=4s4s4s4s16s16s32xH")
# of its DNAT, behind the revision: flags, first address and, after the last, first port
_RANGE, _NEW_RANGE = struct.Struct(">9x4s4xH"), struct.Struct(">5x4s12x16xH")
NEWEST = 2
# a chain, how its rule begins, the set, and how the set spells it
RULES = (
    ("BETWEEN", re.compile(r"-i (\S+) -o (\S+) -j RETURN"), "pair", '"{}" . "{}"'),
    ("BETWEEN", re.compile(r"-i (\S+) -j DROP"), "internal", '"{}"'),
    ("HAIR", re.compile(r"-s (\S+) -o (\S+) -j MASQUERADE"), "own4", '{} . "{}"'),
    ("SOURCES", re.compile(r"-s (\S+)/32 -i (\S+) -j RETURN"), "also4", '{} . "{}"'),
    ("SOURCES", re.compile(r"-i (\S+) -j RETURN"), "anysource", '"{}"'),
    ("DOCKER", re.compile(r"-s (\S+) -j MASQUERADE"), "docker4", "{}"),
    ("LEAVE", re.compile(r"-s (\S+) -j MASQUERADE"), "lease4", "{}"),
    ("LEAVE", re.compile(r"-d (?!224\.)(\S+) -j RETURN"), "over4", "{}"),
)


def read_back(tables: Tables) -> frozenset[HostObject]:
    """Return the chains as a table that is not as it was made, and the elements they tell of."""
    chains = {name: rules for table in tables.values() for name, rules in table.items()}
    ours = {
        name: [_readable(rule) for rule in rules]
        for name, rules in chains.items()
        if name.startswith(CHAIN)
    }
    return frozenset((Table(""), *_elements(ours))) if ours else frozenset()


def _readable(rule: str) -> str:
    try:
        return _spelled(rule) if rule.startswith("(") else rule
    except (ValueError, LookupError, struct.error):
        return ""  # none that this plugin makes


def _spelled(rule: str) -> str:
    """Spell a rule of a legacy table, which is read in the kernel's own bytes.

    Source: linux/netfilter_ipv4/ip_tables.h, linux/netfilter/{xt_tcpudp,xt_sctp,nf_nat}.h.
    """
    head, matches, kind, rest = ast.literal_eval(rule)
    source, dest, source_mask, dest_mask, come, go, number = _HEAD.unpack_from(head)
    words = [] if dest_mask == NONE else [f"-d {_prefix(dest, dest_mask)}"]
    words += [] if source_mask == NONE else [f"-s {_prefix(source, source_mask)}"]
    words += [
        f"{option} {name}" for option, name in (("-i", _text(come)), ("-o", _text(go))) if name
    ]
    proto = PROTOCOLS.get(number, "")
    for name, data in matches:
        if proto and name == proto.encode():
            (first,) = struct.unpack_from("=H", data, 1 if proto == "sctp" else 5)
            words.append(f"-p {proto} -m {proto} --dport {first}")
        elif name == b"comment":
            words.append(f"-m comment --comment {_text(data[1:])}")
    words.append(f"-j {(kind or rest).decode()}")
    if kind == b"DNAT":
        ip, port = _NEW_RANGE.unpack_from(rest) if rest[0] == NEWEST else _RANGE.unpack_from(rest)
        words.append(f"--to-destination {IPv4Address(ip)}:{port}")
    return " ".join(words)


def _prefix(ip: bytes, mask: bytes) -> IPv4Network:
    return IPv4Network((ip, str(IPv4Address(mask))))


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="replace")


def _elements(chains: dict[str, list[str]]) -> Iterator[Element]:
    for chain, form, name, spelled in RULES:
        for found in filter(None, map(form.match, chains.get(CHAIN + chain, ()))):
            yield Element(name, spelled.format(*found.groups()))
    rules = (rule for proto in PORTS for rule in chains.get(CHAIN + proto, ()))
    for found in filter(None, map(PORT.match, rules)):
        ip, proto, number, owner, target, port = found.groups()
        data = f"{target} . {port}"
        if ip:
            yield Element("pub4_ip", f"{ip} . {proto} . {number}", data, owner)
        else:
            yield Element("pub4_any", f"{proto} . {number}", data, owner)
