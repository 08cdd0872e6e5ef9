"""Reads networks and ports back from the iptables rules of an earlier run. Pure.

The reverse of `iptables_rendering`, for what is taken over from the host.
"""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

from driver.host.firewall.iptables_rendering import CHAIN_PREFIX, PROTOS, Chains, Tables
from driver.model import firewall as fw
from driver.model.objects import HostObject
from driver.model.records import ANY, PROTOCOLS

NONE = bytes(4)  # the mask of any address
# of a legacy rule: source, destination, their masks, interfaces, between them masks, protocol;
_HEAD = struct.Struct("=4s4s4s4s16s16s32xH")
# of its DNAT, behind the revision: flags, first address and, after the last, first port
_RANGE, _NEW_RANGE = struct.Struct(">9x4s4xH"), struct.Struct(">5x4s12x16xH")
NEWEST = 2
PORT = re.compile(
    r"(?:-d (?P<host_ip>[\d.]+)/32 )?-p (?P<proto>tcp|udp|sctp) -m \w+ --dport (?P<host_port>\d+) "
    r'-m comment --comment "?(?P<owner>[\w.-]+)"? '
    r"-j DNAT --to-destination (?P<target>[\d.]+):(?P<target_port>\d+)"
)
# a chain, how its rule begins, and the kind of entry that this is, with its fields
RULES: tuple[tuple[str, re.Pattern[str], type[fw.FirewallEntry]], ...] = (
    ("BETWEEN", re.compile(r"-i (?P<source>\S+) -o (?P<destination>\S+) -j RETURN"), fw.BridgePair),
    ("BETWEEN", re.compile(r"-i (?P<bridge>\S+) -j DROP"), fw.InternalBridge),
    ("HAIR", re.compile(r"-s (?P<prefix>\S+) -o (?P<bridge>\S+) -j MASQUERADE"), fw.SourcePrefix),
    ("SOURCES", re.compile(r"-s (?P<ip>\S+)/32 -i (?P<bridge>\S+) -j RETURN"), fw.SourceAddress),
    ("SOURCES", re.compile(r"-i (?P<bridge>\S+) -j RETURN"), fw.AnySource),
    ("DOCKER", re.compile(r"-s (?P<prefix>\S+) -j MASQUERADE"), fw.DockerMasquerade),
    ("LEAVE", re.compile(r"-s (?P<prefix>\S+) -j MASQUERADE"), fw.Masquerade),
    ("LEAVE", re.compile(r"-d (?P<prefix>(?!224\.)\S+) -j RETURN"), fw.OverlayPrefix),
    *((proto.upper(), PORT, fw.PortMap) for proto in PROTOS),
)
FIELDS: dict[str, Callable[[str], object]] = {
    "prefix": IPv4Network,
    "ip": IPv4Address,
    "host_ip": lambda text: IPv4Address(text) if text else ANY,
    "target": IPv4Address,
    "host_port": int,
    "target_port": int,
}


def read_back(tables: Tables) -> frozenset[HostObject]:
    """Return the chains as a ruleset that is not intact, and the entries in them."""
    chains = {name: rules for table in tables.values() for name, rules in table.items()}
    ours = {
        name: [_readable(rule) for rule in rules]
        for name, rules in chains.items()
        if name.startswith(CHAIN_PREFIX)
    }
    return frozenset((fw.Ruleset(intact=False), *_entries(ours))) if ours else frozenset()


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


def _entries(chains: Chains) -> Iterator[fw.FirewallEntry]:
    for chain, form, kind in RULES:
        for found in filter(None, map(form.match, chains.get(CHAIN_PREFIX + chain, ()))):
            with suppress(ValueError):  # none that this plugin makes
                fields = {n: FIELDS.get(n, str)(text) for n, text in found.groupdict().items()}
                yield kind(**fields)
