"""Which set or map of the nft table holds which entries; how nft writes and lists them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import Any, NamedTuple

from driver.model import firewall as fw
from driver.model.records import ANY, PROTOCOLS

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


LINK, _PORT, _PROTO = Form('"{}"'.format, str), Form(str, int), Form(str, PROTOCOLS.__getitem__)
_IP, _NET = Form(str, _address), Form(str, _read_prefix)
_NET_OF_ONE_LENGTH = Form(
    lambda net: str(net.network_address), lambda listed: _prefix(listed, _ONE_LENGTH)
)


class _Set(NamedTuple):
    """A set or map: the kind of its entries, the fields of its keys and of what those lead to."""

    kind: type[fw.FirewallEntry]
    key: Mapping[str, Form]
    data: Mapping[str, Form] = MappingProxyType({})


_SERVICE = {"proto": _PROTO, "host_port": _PORT}
_TARGET = {"target": _IP, "target_port": _PORT}
SETS = {
    "pub4_ip": _Set(fw.PortMap, {"host_ip": _IP, **_SERVICE}, _TARGET),
    "pub4_any": _Set(fw.PortMap, _SERVICE, _TARGET),
    "uplinks": _Set(fw.Uplink, {"bridge": LINK}),
    "carriers": _Set(fw.Carrier, {"bridge": LINK}),
    "tunnels": _Set(fw.TunnelPort, {"port": _PORT}),
    "internal": _Set(fw.InternalBridge, {"bridge": LINK}),
    "pair": _Set(fw.BridgePair, {"source": LINK, "destination": LINK}),
    "own4": _Set(fw.SourcePrefix, {"prefix": _NET, "bridge": LINK}),
    "also4": _Set(fw.SourceAddress, {"ip": _IP, "bridge": LINK}),
    "anysource": _Set(fw.AnySource, {"bridge": LINK}),
    "lease4": _Set(fw.Masquerade, {"prefix": _NET}),
    "over4": _Set(fw.OverlayPrefix, {"prefix": _NET}),
    "docker4": _Set(fw.DockerMasquerade, {"prefix": _NET}),
    "closed4": _Set(fw.ClosedPrefix, {"prefix": _NET}),
    "near4": _Set(fw.NearPrefix, {"prefix": _NET}),
    "direct": _Set(fw.DirectLink, {"link": LINK}),
    "direct4": _Set(fw.PeerPrefix, {"prefix": _NET}),
    "direct24": _Set(fw.PeerPrefix, {"prefix": _NET_OF_ONE_LENGTH}),
    "peers4": _Set(fw.PeerAddress, {"ip": _IP}),
    "etcd4": _Set(fw.EtcdMember, {"ip": _IP, "port": _PORT}),
    "etcd_here": _Set(fw.LocalEtcd, {"port": _PORT}),
    "home4": _Set(fw.LeasePrefix, {"prefix": _NET}),
}
_PLACES = {made.kind: name for name, made in SETS.items()}


def place(entry: fw.FirewallEntry) -> str:
    """Return the name of the set or map that an entry belongs in."""
    match entry:
        case fw.UnknownEntry():
            return entry.place
        case fw.PortMap():
            return "pub4_any" if entry.host_ip == ANY else "pub4_ip"
        case fw.PeerPrefix():
            return "direct24" if entry.prefix.prefixlen == _ONE_LENGTH else "direct4"
    return _PLACES[type(entry)]


def key(entry: fw.FirewallEntry) -> str:
    """Return an entry's key as nft writes it."""
    if isinstance(entry, fw.UnknownEntry):
        return entry.text
    return _write(entry, SETS[place(entry)].key)


def element(entry: fw.FirewallEntry) -> str:
    """Return an entry as nft writes elements, with its owner as the comment."""
    comment = f' comment "{owner}"' if (owner := getattr(entry, "owner", "")) else ""
    data = f" : {_write(entry, _TARGET)}" if isinstance(entry, fw.PortMap) else ""
    return key(entry) + comment + data


def _write(entry: fw.FirewallEntry, fields: Mapping[str, Form]) -> str:
    return " . ".join(form.write(getattr(entry, name)) for name, form in fields.items())
