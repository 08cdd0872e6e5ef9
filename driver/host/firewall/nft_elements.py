"""Which set or map of the nft table holds which entries; how nft writes and lists them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import Any, NamedTuple

from driver.model.firewall import (
    AnySource,
    BridgePair,
    Carrier,
    ClosedPrefix,
    DirectLink,
    DockerMasquerade,
    EtcdMember,
    FirewallEntry,
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
from driver.model.records import ANY

# asked for as numbers: names need /etc/protocols, which container images lack
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_NAMES = {number: name for name, number in PROTOCOLS.items()}
_ONE_LENGTH = 24  # of the prefixes that have a set of their own; one of intervals takes 40 ms
_MANY = 1 << 16

_address = lru_cache(_MANY)(IPv4Address)


@lru_cache(_MANY)
def _prefix(address: str, length: int = 32) -> IPv4Network:
    return IPv4Network((address, length))


def _read_prefix(listed: Any) -> IPv4Network:
    if isinstance(listed, dict):
        return _prefix(listed["prefix"]["addr"], listed["prefix"]["len"])
    return _prefix(listed)


class Form(NamedTuple):
    """How nft writes a field, and what the field is as libnftables lists it."""

    write: Callable[[Any], str]
    read: Callable[[Any], Any]


LINK, _PORT, _PROTO = Form('"{}"'.format, str), Form(str, int), Form(str, _NAMES.__getitem__)
_IP, _NET = Form(str, _address), Form(str, _read_prefix)
_NET_OF_ONE_LENGTH = Form(
    lambda net: str(net.network_address), lambda listed: _prefix(listed, _ONE_LENGTH)
)


class _Set(NamedTuple):
    """A set or map: the kind of its entries, the fields of its keys and of what those lead to."""

    kind: type[FirewallEntry]
    key: Mapping[str, Form]
    data: Mapping[str, Form] = MappingProxyType({})


_SERVICE = {"proto": _PROTO, "host_port": _PORT}
_TARGET = {"target": _IP, "target_port": _PORT}
SETS = {
    "pub4_ip": _Set(PortMap, {"host_ip": _IP, **_SERVICE}, _TARGET),
    "pub4_any": _Set(PortMap, _SERVICE, _TARGET),
    "uplinks": _Set(Uplink, {"bridge": LINK}),
    "carriers": _Set(Carrier, {"bridge": LINK}),
    "tunnels": _Set(TunnelPort, {"port": _PORT}),
    "internal": _Set(InternalBridge, {"bridge": LINK}),
    "pair": _Set(BridgePair, {"source": LINK, "destination": LINK}),
    "own4": _Set(SourcePrefix, {"prefix": _NET, "bridge": LINK}),
    "also4": _Set(SourceAddress, {"ip": _IP, "bridge": LINK}),
    "anysource": _Set(AnySource, {"bridge": LINK}),
    "lease4": _Set(Masquerade, {"prefix": _NET}),
    "over4": _Set(OverlayPrefix, {"prefix": _NET}),
    "docker4": _Set(DockerMasquerade, {"prefix": _NET}),
    "closed4": _Set(ClosedPrefix, {"prefix": _NET}),
    "near4": _Set(NearPrefix, {"prefix": _NET}),
    "direct": _Set(DirectLink, {"link": LINK}),
    "direct4": _Set(PeerPrefix, {"prefix": _NET}),
    "direct24": _Set(PeerPrefix, {"prefix": _NET_OF_ONE_LENGTH}),
    "peers4": _Set(PeerAddress, {"ip": _IP}),
    "etcd4": _Set(EtcdMember, {"ip": _IP, "port": _PORT}),
    "etcd_here": _Set(LocalEtcd, {"port": _PORT}),
    "home4": _Set(LeasePrefix, {"prefix": _NET}),
}
_PLACES = {made.kind: name for name, made in SETS.items()}


def place(entry: FirewallEntry) -> str:
    """Return the name of the set or map that an entry belongs in."""
    match entry:
        case UnknownEntry():
            return entry.place
        case PortMap():
            return "pub4_any" if entry.host_ip == ANY else "pub4_ip"
        case PeerPrefix():
            return "direct24" if entry.prefix.prefixlen == _ONE_LENGTH else "direct4"
    return _PLACES[type(entry)]


def key(entry: FirewallEntry) -> str:
    """Return an entry's key as nft writes it."""
    return entry.text if isinstance(entry, UnknownEntry) else _write(entry, SETS[place(entry)].key)


def element(entry: FirewallEntry) -> str:
    """Return an entry as nft writes elements, with its owner as the comment."""
    comment = f' comment "{owner}"' if (owner := getattr(entry, "owner", "")) else ""
    data = f" : {_write(entry, _TARGET)}" if isinstance(entry, PortMap) else ""
    return key(entry) + comment + data


def _write(entry: FirewallEntry, fields: Mapping[str, Form]) -> str:
    return " . ".join(form.write(getattr(entry, name)) for name, form in fields.items())
