"""flannel's network config: one JSON document in etcd, read as flannel reads it. Pure.

IPv6 fields are checked, since flannel refuses the whole document for a bad one, and then ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Generic, TypeVar

from driver.errors import BadRecord
from driver.flannel.records import quoted, read_object
from driver.model.prefixes import fault_of_network
from driver.model.records import Overlay

BACKENDS = ("vxlan", "host-gw")
DEFAULT_PORT = 8472  # the kernel's, not IANA's
HIGHEST_VNI = 2**24 - 1
HIGHEST_PORT = 65535
HIGHEST_MTU = 65535
LOWEST_MTU = 68 + 50  # the least of IPv4, and VXLAN's headers

N = TypeVar("N", IPv4Network, IPv6Network)


@dataclass(frozen=True, slots=True)
class Family(Generic[N]):
    """What differs between IPv4 and IPv6: fields' prefix, types, and lengths of subnets."""

    prefix: str
    network: type[N]
    address: type[IPv4Address] | type[IPv6Address]
    usual: int
    longest: int
    example: str


V4 = Family("", IPv4Network, IPv4Address, 24, 30, "10.5.0.0/16")
V6 = Family("IPv6", IPv6Network, IPv6Address, 64, 126, "fd00:5::/48")


def read_config(text: str | bytes) -> Overlay:
    """Return the overlay that a network config describes, every default filled in.

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
    subnets = _subnets(fields, V4)
    _subnets(fields, V6, required=six)
    return Overlay(**subnets, **_backend(fields))


def _subnets(
    fields: Mapping[str, Any], family: Family[N], *, required: bool = True
) -> dict[str, Any]:
    """Return the fields of Overlay that a family decides on; nothing unless `required`."""
    prefix = family.prefix
    network = _network(fields, f"{prefix}Network", family)
    length = _number(fields, f"{prefix}SubnetLen", 1, 2**32 - 1)
    first = _address(fields, f"{prefix}SubnetMin", family)
    last = _address(fields, f"{prefix}SubnetMax", family)
    if not required:
        return {}
    if network is None:
        raise BadRecord(f"{prefix}Network is missing in the network config")
    fault = fault_of_network(network) if isinstance(network, IPv4Network) else ""
    if fault or network.prefixlen == 0:
        why = f": it {fault}" if fault else ""
        raise BadRecord(f"{prefix}Network {network} cannot be an overlay's network{why}")
    length = _length(network, length, family)
    size = 1 << (network.max_prefixlen - length)
    return {
        "network": network,
        "subnet_len": length,
        "subnet_min": _start(f"{prefix}SubnetMin", first or network[size], network, length),
        "subnet_max": _start(f"{prefix}SubnetMax", last or network[-size], network, length),
    }


def _length(network: N, asked: int, family: Family[N]) -> int:
    """Return the prefix length of a subnet, of which at least four must fit; `asked` 0: unset."""
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


def _start(name: str, address: Any, network: IPv4Network | IPv6Network, length: int) -> Any:
    """Return an address that has to be the first one of a subnet."""
    if address not in network:
        raise BadRecord(f"{name} {address} is not inside {network}")
    if int(address) % (1 << (network.max_prefixlen - length)):
        raise BadRecord(f"{name} {address} is not the first address of a /{length} subnet")
    return address


def _backend(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Overlay that Backend decides on."""
    given = fields.get("backend", {"Type": "udp"})
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise BadRecord(f'Backend {quoted(given)} is not a JSON object like {{"Type": "vxlan"}}')
    options = {name.lower(): value for name, value in given.items()}
    name = options.get("type", "") or ""
    if not isinstance(name, str) or name.lower() not in BACKENDS:
        default = "" if "backend" in fields else " (the default without a Backend)"
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


# --- fields ---


def _flag(fields: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = fields.get(name.lower())
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRecord(f"{name} {quoted(value)} is neither true nor false")
    return value


def _number(fields: Mapping[str, Any], name: str, lowest: int, highest: int) -> int:
    """Return a whole number; 0 if it is 0, null or missing."""
    value = fields.get(name.lower())
    if value is None or (value == 0 and type(value) is int):
        return 0
    if type(value) is not int or not lowest <= value <= highest:
        raise BadRecord(f"{name} {quoted(value)} is not a whole number from {lowest} to {highest}")
    return value


def _network(fields: Mapping[str, Any], name: str, family: Family[N]) -> N | None:
    if name.lower() not in fields:
        return None
    value = fields[name.lower()]
    try:
        if not isinstance(value, str) or "/" not in value:
            raise ValueError
        address, _, length = value.partition("/")
        if not (length.isascii() and length.isdigit()):
            raise ValueError
        return family.network((family.address(address), int(length)), strict=False)
    except ValueError:
        raise BadRecord(f"{name} {quoted(value)} is not a prefix like {family.example}") from None


def _address(fields: Mapping[str, Any], name: str, family: Family[N]) -> Any:
    """Return an address; None if it is missing or all zeros."""
    if name.lower() not in fields:
        return None
    value = fields[name.lower()]
    try:
        if not isinstance(value, str):
            raise ValueError
        found = family.address(value)
    except ValueError:
        kind = f"IPv{family.address(0).version}"
        raise BadRecord(f"{name} {quoted(value)} is not an {kind} address; leave it out") from None
    return found if int(found) else None
