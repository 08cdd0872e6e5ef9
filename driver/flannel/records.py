"""flannel's leases: their keys, their values, and what they mean to this host. No I/O.

Keys and values are byte for byte flannel's, since flannelds read them: one that they cannot read
makes them drop all their peers. Imports `flannel_config`, `registry`, `prefixes`, `model`,
`errors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from typing import Any, TypeVar

from driver.errors import BadRecord
from driver.flannel.etcd.registry import Entry
from driver.flannel.network_config import quoted, read_object
from driver.model.prefixes import overlap, parts
from driver.model.records import Overlay, Peer

# The tail of a key is what counts: flannel does not look at what comes before.
KEY = re.compile(r"(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([a-f0-9:]+)-(\d+))?\Z", re.ASCII)
CHOICES = 100  # free subnets to choose from, so that hosts seldom want the same one
LONGEST_V4 = 31
LONGEST_V6 = 127
MAC_FORMS = re.compile(
    r"(?:[0-9a-f]{2}([:-]))(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}"
)
NO_ADDRESS = IPv4Address(0)
A = TypeVar("A", IPv4Address, IPv6Address)


@dataclass(frozen=True)
class LeaseRecord:
    """A lease as it is in etcd. `revision`: the one at which it was last written."""

    key: str
    subnet: IPv4Network
    subnet6: IPv6Network | None
    public_ip: IPv4Address
    backend: str
    mac: str | None
    revision: int

    @cached_property
    def peer(self) -> Peer:
        """Give what it is to this host; always the same object, which is quick to compare."""
        return Peer(self.subnet, self.public_ip, self.backend, self.mac)

    @cached_property
    def numbers(self) -> tuple[int, int, int]:
        """Subnet's start, its length, and public IP as numbers, which are quick to compare."""
        return int(self.subnet.network_address), self.subnet.prefixlen, int(self.public_ip)


ParseCache = dict[Entry, LeaseRecord | str]  # a text says what is wrong


def config_key(prefix: str) -> str:
    """Give the key of the network config."""
    return f"{prefix}/config"


def lease_range(prefix: str) -> str:
    """Give what the key of every lease starts with: without a slash at the end, as for flannel."""
    return f"{prefix}/subnets"


def lease_key(subnet: IPv4Network, subnet6: IPv6Network | None = None) -> str:
    """Name a subnet as the last part of its key does."""
    text = f"{subnet.network_address}-{subnet.prefixlen}"
    return f"{text}&{subnet6.network_address}-{subnet6.prefixlen}" if subnet6 else text


def read_key(key: str) -> tuple[IPv4Network, IPv6Network | None]:
    """Read the subnets out of a lease's key.

    Shape:  ".../10.5.34.0-24", ".../10.5.34.0-24&fd00:5:0:45::-64".
    Errors: BadRecord if the key is no subnet's.
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
            # as a number, for ipaddress reads an address given as one twice
            IPv4Network((int(IPv4Address(four)), int(length)), strict=False),
            IPv6Network((IPv6Address(six), int(length6)), strict=False) if six else None,
        )
    except ValueError:
        raise BadRecord(f"key {quoted(key)} is no subnet's") from None


def lease_value(public_ip: IPv4Address, backend: str, vni: int, mac: str | None) -> str:
    """Write a lease as flannel does; `vni` and `mac` are VXLAN's.

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
    """Read a lease.

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
        raise BadRecord(f"{what}: BackendType {quoted(backend)} is no text")
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
        raise BadRecord(f"{what}: {name} {quoted(value)} is no address") from None


def _vtep_mac(fields: dict[str, Any], what: str) -> str | None:
    given = fields.get("backenddata")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise BadRecord(f"{what}: BackendData {quoted(given)} is no JSON object")
    text = {name.lower(): value for name, value in given.items()}.get("vtepmac")
    if text is None:
        return None
    if not isinstance(text, str) or not MAC_FORMS.fullmatch(text.lower()):
        raise BadRecord(f"{what}: VtepMAC {quoted(text)} is no MAC")
    return bytes.fromhex(re.sub("[:.-]", "", text)).hex(":")


def read_leases(entries: Iterable[Entry], known: ParseCache) -> tuple[list[LeaseRecord], list[str]]:
    """Read what lies where leases lie; what cannot be read is told in a sentence each.

    `known` remembers what is read, for the next time.
    """
    records: list[LeaseRecord] = []
    problems: list[str] = []
    for entry in entries:
        if (found := known.get(entry)) is None:
            found = known[entry] = _reading(entry)
        if isinstance(found, str):
            problems.append(found)
        else:
            records.append(found)
    return records, problems


def _reading(entry: Entry) -> LeaseRecord | str:
    try:
        return read_lease(entry.key, entry.value or b"", entry.revision)
    except BadRecord as error:
        return f"{error}: skipped"


def taken_subnets(
    entries: Iterable[Entry], overlay: Overlay, known: ParseCache
) -> list[IPv4Network]:
    """List the subnets that keys name, whatever their values say; `known`: as for `read_leases`.

    A key that names the whole network or more would leave nothing, and is nobody's subnet.
    """
    taken, least = [], overlay.network.prefixlen
    for entry in entries:
        found = known.get(entry)
        try:
            subnet = found.subnet if isinstance(found, LeaseRecord) else read_key(entry.key)[0]
        except BadRecord:
            continue
        if subnet.prefixlen > least or not overlay.network.subnet_of(subnet):
            taken.append(subnet)
    return taken


def free_subnets(overlay: Overlay, taken: Iterable[IPv4Network]) -> Iterator[IPv4Network]:
    """Give the free subnets in order; whatever overlaps a taken one is not free."""
    size = 1 << (overlay.network.max_prefixlen - overlay.subnet_len)
    blocked = sorted((int(n.network_address), int(n.broadcast_address)) for n in taken)
    at, end, index = int(overlay.subnet_min), int(overlay.subnet_max), 0
    while at <= end:
        while index < len(blocked) and blocked[index][1] < at:
            index += 1
        if index < len(blocked) and blocked[index][0] < at + size:
            at = blocked[index][1] // size * size + size  # subnets begin at multiples of their size
            continue
        yield IPv4Network((at, overlay.subnet_len))
        at += size


def compatible(overlay: Overlay, subnet: IPv4Network) -> bool:
    """Tell whether the config allows a host to have a subnet."""
    return (
        subnet.prefixlen == overlay.subnet_len
        and overlay.subnet_min <= subnet.network_address <= overlay.subnet_max
    )


class AllowedSubnets:
    """The subnets that a host may have: those of the config that overlap none of its own LANs.

    A LAN that has the whole Network in it is how the administrator has chosen the Network. A host
    whose subnet is in use stays with it, and is given no LANs here.
    """

    def __init__(self, overlay: Overlay, lans: tuple[IPv4Network, ...]) -> None:
        self.overlay, self.lans = overlay, parts(overlay.network, lans)

    def free(self, taken: Iterable[IPv4Network]) -> list[IPv4Network]:
        """Return the first of those that nobody else has."""
        return list(islice(free_subnets(self.overlay, [*taken, *self.lans]), CHOICES))

    def allows(self, subnet: IPv4Network) -> bool:
        """Whether the host may have this one, if nobody else has it."""
        return compatible(self.overlay, subnet) and not any(overlap(n, subnet) for n in self.lans)
