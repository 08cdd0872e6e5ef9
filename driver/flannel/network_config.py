"""flannel's network config: one JSON document in etcd, read as flannel reads it. No I/O.

IPv6 fields are checked, since flannel refuses the whole document for a bad one; what they say is
not used. Imports `prefixes`, `model`, `errors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Generic, TypeVar

from driver.errors import BadRecord
from driver.model.prefixes import fault_of_network
from driver.model.records import Overlay

BACKENDS = ("vxlan", "host-gw")
DEFAULT_PORT = 8472  # the kernel's, not IANA's
HIGHEST_VNI = 2**24 - 1
HIGHEST_PORT = 65535
HIGHEST_MTU = 65535
LOWEST_MTU = 68 + 50  # the least of IPv4, and VXLAN's headers
MOST_QUOTED = 80

N = TypeVar("N", IPv4Network, IPv6Network)


@dataclass(frozen=True, slots=True)
class Family(Generic[N]):
    """What differs between IPv4 and IPv6. `usual` is the subnet length where there is room."""

    prefix: str
    network: type[N]
    address: type[IPv4Address] | type[IPv6Address]
    usual: int
    longest: int


V4 = Family("", IPv4Network, IPv4Address, 24, 30)
V6 = Family("IPv6", IPv6Network, IPv6Address, 64, 126)


@dataclass(frozen=True, slots=True)
class Range(Generic[N]):
    """The subnets that a network gives to hosts."""

    network: N
    length: int
    first: N
    last: N


def read_config(text: str | bytes) -> Overlay:
    """Read the network config, every default filled in.

    Shape:  {Network, SubnetLen, SubnetMin, SubnetMax, Backend: {Type, ...}, ...}; names in any
            case, unknown ones ignored.
    Errors: BadRecord naming the field, the value and what is allowed.
    Source: flannel, pkg/subnet ParseConfig and CheckNetworkConfig.
    """
    fields = read_object(text, "the network config")
    four, six = _flag(fields, "EnableIPv4", default=True), _flag(fields, "EnableIPv6")
    _flag(fields, "EnableNFTables")
    if not four:
        raise BadRecord(
            "EnableIPv4 is false in the network config: an overlay without IPv4 is not supported"
        )
    given = _read_range(fields, V4)
    _read_range(fields, V6, wanted=six)
    assert given is not None  # noqa: S101 - IPv4 is wanted, so there is one or an error
    return Overlay(
        network=given.network,
        subnet_len=given.length,
        subnet_min=given.first.network_address,
        subnet_max=given.last.network_address,
        **_backend(fields),
    )


def read_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Decode a JSON object; its names come in lower case, as flannel ignores their case.

    Errors: BadRecord.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        found = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{what} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadRecord(f"{what} is no JSON object: {quoted(found)}")
    return {name.lower(): value for name, value in found.items()}


def quoted(value: object) -> str:
    """Show a value in a message, cut to a length."""
    text = json.dumps(value)
    return text if len(text) <= MOST_QUOTED else text[:MOST_QUOTED] + "..."


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no value")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def _flag(fields: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = fields.get(name.lower())
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRecord(f"{name} {quoted(value)} is neither true nor false")
    return value


def _number(fields: Mapping[str, Any], name: str, lowest: int, highest: int) -> int:
    """Give a whole number; 0 when it is not there, which is also a way to leave it out."""
    value = fields.get(name.lower())
    if value is None or (value == 0 and type(value) is int):
        return 0
    if type(value) is not int or not lowest <= value <= highest:
        raise BadRecord(f"{name} {quoted(value)} is no whole number from {lowest} to {highest}")
    return value


def _read_range(
    fields: Mapping[str, Any], family: Family[N], *, wanted: bool = True
) -> Range[N] | None:
    """Read what is there of a family; complain of what is missing or does not fit if `wanted`."""
    prefix = family.prefix
    network = _network(fields, f"{prefix}Network", family)
    asked = _number(fields, f"{prefix}SubnetLen", 1, 2**32 - 1)
    first = _address(fields, f"{prefix}SubnetMin", family)
    last = _address(fields, f"{prefix}SubnetMax", family)
    if not wanted:
        return None
    if network is None:
        raise BadRecord(f"{prefix}Network is missing in the network config")
    fault = fault_of_network(network) if isinstance(network, IPv4Network) else ""
    if fault or network.prefixlen == 0:
        why = f": it {fault}" if fault else ""
        raise BadRecord(f"{prefix}Network {network} is no network for an overlay{why}")
    length = _length(network, asked, family)
    size = 1 << (network.max_prefixlen - length)
    return Range(
        network,
        length,
        _subnet(f"{prefix}SubnetMin", first or network[size], network, length, family),
        _subnet(f"{prefix}SubnetMax", last or network[-size], network, length, family),
    )


def _network(fields: Mapping[str, Any], name: str, family: Family[N]) -> N | None:
    if name.lower() not in fields:
        return None
    value = fields[name.lower()]
    try:
        if not isinstance(value, str) or "/" not in value:
            raise ValueError
        address, _, length = value.partition("/")
        return family.network((family.address(address), _decimal(length)), strict=False)
    except ValueError:
        raise BadRecord(
            f"{name} {quoted(value)} is no prefix like {family.network((1 << 3, 8), strict=False)}"
        ) from None


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)


def _address(fields: Mapping[str, Any], name: str, family: Family[N]) -> Any:
    """Give an address, None when it is not there or is the one that means so."""
    if name.lower() not in fields:
        return None
    value = fields[name.lower()]
    try:
        if not isinstance(value, str):
            raise ValueError
        found = family.address(value)
    except ValueError:
        kind = f"IPv{family.address(0).version}"
        raise BadRecord(f"{name} {quoted(value)} is no {kind} address; leave it out") from None
    return found if int(found) else None


def _length(network: N, asked: int, family: Family[N]) -> int:
    """Give the prefix length of a subnet: at least four have to fit in."""
    lowest = network.prefixlen + 2
    name = f"{family.prefix}SubnetLen"
    if asked and not lowest <= asked <= family.longest:
        raise BadRecord(
            f"{name} {asked} is not from {lowest} (four subnets in {network}) to {family.longest}"
        )
    if lowest > family.longest:
        raise BadRecord(
            f"{family.prefix}Network {network} has no room for four subnets of /{family.longest}"
        )
    return asked or max(family.usual, lowest)


def _subnet(name: str, address: Any, network: N, length: int, family: Family[N]) -> N:
    if address not in network:
        raise BadRecord(f"{name} {address} is not inside {network}")
    try:
        return family.network((int(address), length))
    except ValueError:
        raise BadRecord(f"{name} {address} is no first address of a /{length} subnet") from None


def _backend(fields: Mapping[str, Any]) -> dict[str, Any]:
    given = fields.get("backend", {"Type": "udp"})
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise BadRecord(f'Backend {quoted(given)} is no JSON object like {{"Type": "vxlan"}}')
    options = {name.lower(): value for name, value in given.items()}
    name = options.get("type", "") or ""
    if not isinstance(name, str) or name.lower() not in BACKENDS:
        default = "" if "backend" in fields else " (it is what a missing Backend means)"
        raise BadRecord(
            f"Backend type {quoted(name)}{default} is not supported; the supported ones are "
            f"{' and '.join(BACKENDS)}"
        )
    if name.lower() == "host-gw":
        return {"backend": "host-gw"}
    return {
        "backend": "vxlan",
        "vni": _number(options, "VNI", 1, HIGHEST_VNI) if options.get("vni") is not None else 1,
        "port": _number(options, "Port", 1, HIGHEST_PORT) or DEFAULT_PORT,
        "gbp": _flag(options, "GBP"),
        "learning": _flag(options, "Learning"),
        "direct_routing": _flag(options, "DirectRouting"),
        "mtu": _number(options, "MTU", LOWEST_MTU, HIGHEST_MTU) or None,
    }
