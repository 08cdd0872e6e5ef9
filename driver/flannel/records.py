"""flannel's lease records in etcd: their keys and values, read and written. Pure.

What is written is byte for byte flannel's: a flanneld drops all its peers for one bad record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

from driver.errors import BadRecord
from driver.flannel.etcd.registry import Entry
from driver.model.records import Peer

# Like flannel, look at a key's end only.
KEY = re.compile(r"(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([a-f0-9:]+)-(\d+))?\Z", re.ASCII)
MOST_QUOTED = 80
LONGEST_V4 = 31
LONGEST_V6 = 127
MAC_FORMS = re.compile(
    r"(?:[0-9a-f]{2}([:-]))(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}"
)
NO_ADDRESS = IPv4Address(0)
A = TypeVar("A", IPv4Address, IPv6Address)
Identity = tuple[IPv4Address, str | None]  # a host's public IP and MAC


@dataclass(frozen=True)
class LeaseRecord:
    """A lease as it is in etcd; `revision` is that of its last write."""

    key: str
    subnet: IPv4Network
    subnet6: IPv6Network | None
    public_ip: IPv4Address
    backend: str
    mac: str | None
    revision: int

    @cached_property
    def peer(self) -> Peer:
        """The peer that holds it; always the same object, which is quick to compare."""
        return Peer(self.subnet, self.public_ip, self.backend, self.mac)

    @property
    def identity(self) -> Identity:
        """What tells its host from others."""
        return self.public_ip, self.mac

    @cached_property
    def numbers(self) -> tuple[int, int, int]:
        """The subnet's first address, its length, and the public IP: quick to compare."""
        return int(self.subnet.network_address), self.subnet.prefixlen, int(self.public_ip)


ParseCache = dict[Entry, LeaseRecord | str]  # a string says why an entry cannot be read


def config_key(prefix: str) -> str:
    """Return the key of the network config."""
    return f"{prefix}/config"


def lease_range(prefix: str) -> str:
    """Return what every lease's key starts with; like flannel's, it does not end with a slash."""
    return f"{prefix}/subnets"


def lease_key(subnet: IPv4Network, subnet6: IPv6Network | None = None) -> str:
    """Return the last part of a lease's key."""
    text = f"{subnet.network_address}-{subnet.prefixlen}"
    return f"{text}&{subnet6.network_address}-{subnet6.prefixlen}" if subnet6 else text


def read_key(key: str) -> tuple[IPv4Network, IPv6Network | None]:
    """Return the subnets that a lease's key names.

    Shape:  ".../10.5.34.0-24", ".../10.5.34.0-24&fd00:5:0:45::-64".
    Errors: BadRecord.
    Source: flannel, pkg/subnet ParseSubnetKey.
    """
    found = KEY.search(key)
    try:
        if found is None:
            raise ValueError
        four, length, six, length6 = found.groups()
        if int(length) > LONGEST_V4 or int(length6 or 0) > LONGEST_V6:
            raise ValueError
        return (
            # as a number, since ipaddress parses an IPv4Address a second time
            IPv4Network((int(IPv4Address(four)), int(length)), strict=False),
            IPv6Network((IPv6Address(six), int(length6)), strict=False) if six else None,
        )
    except ValueError:
        raise BadRecord(f"key {quoted(key)} does not name a subnet") from None


def lease_value(public_ip: IPv4Address, backend: str, vni: int, mac: str | None) -> str:
    """Return a lease's value as flannel writes it; `vni` and `mac` are used for vxlan only.

    Source: flannel, pkg/lease LeaseAttrs.
    """
    fields: dict[str, Any] = {
        "PublicIP": str(public_ip),
        "PublicIPv6": None,
        "BackendType": backend,
    }
    if backend == "vxlan":
        fields["BackendData"] = {"VNI": vni, "VtepMAC": mac}
    return json.dumps(fields, separators=(",", ":"))


def read_lease(key: str, value: bytes, revision: int) -> LeaseRecord:
    """Return the lease of a key and its value.

    Shape:  value {PublicIP, PublicIPv6, BackendType, BackendData: {VNI, VtepMAC}}; names in any
            case, unknown ones ignored, PublicIP left out is 0.0.0.0.
    Errors: BadRecord.
    Source: flannel, pkg/subnet/etcd kvToIPLease.
    """
    subnet, subnet6 = read_key(key)
    what = f"lease {quoted(key)}"
    fields = read_object(value, what)
    backend = fields.get("backendtype")
    if not isinstance(backend, str | None):
        raise BadRecord(f"{what}: BackendType {quoted(backend)} is not a string")
    return LeaseRecord(
        key=key,
        subnet=subnet,
        subnet6=subnet6,
        public_ip=_public_ip(fields, what),
        backend=backend or "",
        mac=_vtep_mac(fields, what) if backend == "vxlan" else None,
        revision=revision,
    )


def _public_ip(fields: dict[str, Any], what: str) -> IPv4Address:
    if fields.get("publicipv6") is not None:
        _address(IPv6Address, fields["publicipv6"], what, "PublicIPv6")
    if "publicip" not in fields:
        return NO_ADDRESS
    return _address(IPv4Address, fields["publicip"], what, "PublicIP")


def _address(kind: type[A], value: object, what: str, name: str) -> A:
    try:
        if not isinstance(value, str):
            raise ValueError
        return kind(value)
    except ValueError:
        raise BadRecord(f"{what}: {name} {quoted(value)} is not an address") from None


def _vtep_mac(fields: dict[str, Any], what: str) -> str | None:
    given = fields.get("backenddata")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise BadRecord(f"{what}: BackendData {quoted(given)} is not a JSON object")
    text = {name.lower(): value for name, value in given.items()}.get("vtepmac")
    if text is None:
        return None
    if not isinstance(text, str) or not MAC_FORMS.fullmatch(text.lower()):
        raise BadRecord(f"{what}: VtepMAC {quoted(text)} is not a MAC")
    return bytes.fromhex(re.sub("[:.-]", "", text)).hex(":")


def read_leases(entries: Iterable[Entry], cache: ParseCache) -> tuple[list[LeaseRecord], list[str]]:
    """Return the leases among entries, and a sentence for each entry that cannot be read."""
    records: list[LeaseRecord] = []
    problems: list[str] = []
    for entry in entries:
        if (found := cache.get(entry)) is None:
            found = cache[entry] = _lease_or_problem(entry)
        if isinstance(found, str):
            problems.append(found)
        else:
            records.append(found)
    return records, problems


def _lease_or_problem(entry: Entry) -> LeaseRecord | str:
    try:
        return read_lease(entry.key, entry.value or b"", entry.revision)
    except BadRecord as error:
        return f"{error}: skipped"


def read_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Return a JSON object with its names in lower case, since flannel ignores their case.

    Errors: BadRecord, which calls the document `what`.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        found = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{what} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadRecord(f"{what} is not a JSON object: {quoted(found)}")
    return {name.lower(): value for name, value in found.items()}


def quoted(value: object) -> str:
    """Return a value as JSON for a message, cut to a length."""
    text = json.dumps(value)
    return text if len(text) <= MOST_QUOTED else text[:MOST_QUOTED] + "..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
