"""Published ports as iptables rules. Pure. Imports `rules` and the nouns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from driver.core.firewall import PROTOS, read_port
from driver.errors import HostError
from driver.model.objects import Element
from driver.model.records import ANY, short

MARK = "docker-flannel"  # the comment on our jumps
PORTS = frozenset(range(1, 1 << 16))  # iptables takes 65537 for 1
NAME = re.compile(r"[\w.@:-]{1,15}", re.ASCII)


class PortRule(NamedTuple):
    """The rule of a published port, and where in its protocol's chain it has to be."""

    any_address: bool
    host_ip: int
    host_port: int
    proto: str
    text: str


def port_rule(element: Element) -> PortRule | None:
    """Return the rule of a published port; None for an element that is none.

    Errors: HostError for a port, an address or an owner that iptables cannot take.
    """
    try:
        port = read_port(element)
        if port and not {port.mapping.host_port, port.mapping.port} <= PORTS:
            raise ValueError("a port out of range")
    except (ValueError, KeyError):
        raise HostError(f"iptables cannot publish {element.at!r} to {element.data!r}") from None
    if port is None:
        return None
    if not NAME.fullmatch(short(port.owner) or MARK):
        raise HostError(f"iptables cannot note {port.owner!r} as the owner of {element.at!r}")
    proto, ip, number = port.mapping.proto, port.mapping.host_ip, port.mapping.host_port
    text = (
        f"{'' if ip == ANY else f'-d {ip}/32 '}-p {proto} -m {proto} --dport {number} "
        f"-m comment --comment {short(port.owner) or MARK} "
        f"-j DNAT --to-destination {port.target}:{port.mapping.port}"
    )
    return PortRule(ip == ANY, int(ip), number, proto, text)


def published(ports: Iterable[PortRule]) -> dict[str, list[str]]:
    """Return a chain per protocol with a rule per port, those of one host address first."""
    chains: dict[str, list[str]] = {proto.upper(): [] for proto in PROTOS}
    for port in sorted(ports):
        chains[port.proto.upper()].append(port.text)
    return chains
