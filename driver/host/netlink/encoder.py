"""Encodes what `kernel` writes. pyroute2 does it, which is loaded only here.

It takes 0.1 s to load, so it is not before it is needed. Imports only `events`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, Any

from driver.host.netlink.channel import MAIN_TABLE, METRIC, PROTOCOL, Link

if TYPE_CHECKING:
    from pyroute2.netlink import nlmsg

UNREACHABLE = 7
Attribute = tuple[str, Any]
_loading = threading.Lock()  # two threads that load the package at once fail: "deadlock detected"


def _encode(message: nlmsg, attrs: Iterable[Attribute], **fields: int) -> bytes:
    message.setvalue({**fields, "attrs": list(attrs)})
    message.encode()
    return bytes(message.data)


def link(*attrs: Attribute, index: int = 0, up: bool = False) -> bytes:
    """Encode a link that is made, changed or removed."""
    with _loading:
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: PLC0415

    return _encode(ifinfmsg(), attrs, index=index, flags=int(up), change=int(up))


def nest(name: str, *attrs: Attribute) -> Attribute:
    """Put attributes into one."""
    return name, {"attrs": list(attrs)}


def address(of: Link, ip: IPv4Interface) -> bytes:
    """Encode an address of a link."""
    with _loading:
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: PLC0415

    attrs = [("IFA_LOCAL", str(ip.ip)), ("IFA_ADDRESS", str(ip.ip))]
    length = ip.network.prefixlen
    return _encode(ifaddrmsg(), attrs, family=socket.AF_INET, index=of.number, prefixlen=length)


def unreachable(dst: IPv4Network) -> bytes:
    """Encode a route that refuses a prefix."""
    with _loading:
        from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: PLC0415

    attrs = [("RTA_DST", str(dst.network_address)), ("RTA_PRIORITY", METRIC)]
    kind = {"type": UNREACHABLE, "proto": PROTOCOL, "table": MAIN_TABLE}
    return _encode(rtmsg(), attrs, family=socket.AF_INET, dst_len=dst.prefixlen, **kind)
