"""Encodes messages to the kernel, with room for the header that a channel writes.

pyroute2 encodes bridges (`link`), which are rare. It is too slow for what is written for each
container or peer, so those messages are encoded here, also where they are rare. The vxlan device is
encoded here, too, since all routes to peers wait for it at the start.
`python -m benchmarks.netlink` with pyroute2 0.9.7, in microseconds:

                            ours   pyroute2
    bridge                     3         79   for each network: pyroute2's
    veth pair                  6        177   for each container, as the next two
    port of a bridge           3         93
    address                    1         41
    flows to forget            7        169   for each published port
    1,000 neighbours       1,500     58,000   for a thousand peers, as the next two
    1,000 FDB entries      1,200     58,000
    1,000 routes           1,300    117,000
    1,000 links, decoded  27,000    210,000   in each pass, as the next; see `decoder`
    1,000 routes, decoded  4,300     26,000

Loading pyroute2 takes 0.1 s and 18 MB; that is done after the boot pass.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from sys import byteorder
from typing import Any

from driver.host.netlink import constants as nl
from driver.model.objects import Veth, Vxlan
from driver.model.records import ALIAS_PREFIX

Attribute = tuple[str, Any]
BpfStep = tuple[int, int, int, int]  # code, steps to skip if true and if not, value
_loading = threading.Lock()  # two threads that load the package at once fail: "deadlock detected"


def link(*attrs: Attribute, up: bool = False) -> bytes:
    """Encode a link that is made or changed."""
    with _loading:
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: PLC0415

    message = ifinfmsg()
    message.setvalue({"flags": int(up), "change": int(up), "attrs": list(attrs)})
    message.encode()
    return bytes(message.data)


def link_kind(kind: str) -> Attribute:
    """Encode the kind of a link."""
    return "IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute."""
    size = nl.NLATTR.size + len(payload)
    return nl.NLATTR.pack(size, kind) + payload + bytes(-size % 4)


def nest(kind: int, *attrs: bytes) -> bytes:
    """Encode an attribute of attributes."""
    return attribute(kind | nl.NLA_F_NESTED, b"".join(attrs))


def u32(kind: int, value: int) -> bytes:
    """Encode an attribute of 32 bits."""
    return attribute(kind, value.to_bytes(4, byteorder))


def string(kind: int, value: str) -> bytes:
    """Encode an attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def ipv4(kind: int, value: IPv4Address) -> bytes:
    """Encode an attribute that is an IPv4 address."""
    return attribute(kind, value.packed)


def mac(kind: int, value: str) -> bytes:
    """Encode an attribute that is a MAC."""
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def named(name: str) -> bytes:
    """Encode which link is meant, by its name."""
    return bytes(nl.IFINFOMSG.size) + string(nl.IFLA_IFNAME, name)


def ours(name: str) -> bytes:
    """Encode a link of ours that is made or changed, by its name, and that it is up."""
    head = nl.IFINFOMSG.pack(0, 0, nl.IFF_UP, nl.IFF_UP)
    return head + string(nl.IFLA_IFNAME, name) + u32(nl.IFLA_GROUP, nl.GROUP)


def numbered(index: int) -> bytes:
    """Encode which link is meant, by its index."""
    return nl.IFINFOMSG.pack(0, index, 0, 0)


def doomed(index: int = 0) -> bytes:
    """Encode a link's move into the group to remove; without an index, that group itself."""
    return numbered(index) + u32(nl.IFLA_GROUP, nl.DOOMED)


def veth(planned: Veth, bridge: int) -> bytes:
    """Encode a new pair; its host end is up and on the bridge with this index."""
    mtu = u32(nl.IFLA_MTU, planned.mtu)
    end = named(planned.container_end) + mtu + mac(nl.IFLA_ADDRESS, planned.mac)
    peer = nest(nl.IFLA_INFO_DATA, attribute(nl.VETH_INFO_PEER, end[nl.NLMSGHDR.size :]))
    info = nest(nl.IFLA_LINKINFO, string(nl.IFLA_INFO_KIND, "veth"), peer)
    return host_end(planned, bridge) + info


def host_end(planned: Veth, bridge: int) -> bytes:
    """Encode the host end of a pair, up and on the bridge with this index."""
    return ours(planned.name) + u32(nl.IFLA_MASTER, bridge) + u32(nl.IFLA_MTU, planned.mtu)


def vxlan(device: Vxlan, parent: int, *, new: bool) -> bytes:
    """Encode what only a vxlan device has; the kernel takes its port and GBP only when `new`."""
    detail = u32(nl.IFLA_VXLAN_ID, device.vni) + u32(nl.IFLA_VXLAN_LINK, parent)
    detail += ipv4(nl.IFLA_VXLAN_LOCAL, device.local)
    detail += attribute(nl.IFLA_VXLAN_LEARNING, bytes([device.learning]))
    if new:
        detail += attribute(nl.IFLA_VXLAN_PORT, device.port.to_bytes(2, "big"))
        detail += attribute(nl.IFLA_VXLAN_GBP, b"") if device.gbp else b""
    data = nest(nl.IFLA_INFO_DATA, detail)
    return nest(nl.IFLA_LINKINFO, string(nl.IFLA_INFO_KIND, "vxlan"), data)


def bridge_port(planned: Veth) -> bytes:
    """Encode the owner of a pair, and the hairpin mode of its host end."""
    port = nest(nl.IFLA_INFO_SLAVE_DATA, attribute(nl.IFLA_BRPORT_MODE, bytes([planned.hairpin])))
    info = nest(nl.IFLA_LINKINFO, string(nl.IFLA_INFO_SLAVE_KIND, "bridge"), port)
    return named(planned.name) + string(nl.IFLA_IFALIAS, ALIAS_PREFIX + planned.owner) + info


def address(index: int, ip: IPv4Interface) -> bytes:
    """Encode an address of a link."""
    head = nl.IFADDRMSG.pack(socket.AF_INET, ip.network.prefixlen, 0, 0, index)
    return head + ipv4(nl.IFA_LOCAL, ip) + ipv4(nl.IFA_ADDRESS, ip)


def route(
    dst: IPv4Network,
    *attrs: bytes,
    table: int = nl.RT_TABLE_MAIN,
    kind: int = nl.RTN_UNICAST,
    scope: int = nl.RT_SCOPE_UNIVERSE,
    flags: int = 0,
) -> bytes:
    """Encode a route of ours."""
    family, length = socket.AF_INET, dst.prefixlen
    head = nl.RTMSG.pack(family, length, 0, 0, table, nl.PROTOCOL, scope, kind, flags)
    return head + ipv4(nl.RTA_DST, dst.network_address) + b"".join(attrs)


def neighbour(index: int, ip: IPv4Address, lladdr: str = "") -> bytes:
    """Encode a neighbour, permanent if its MAC is given."""
    state = nl.NUD_PERMANENT if lladdr else 0
    head = nl.NDMSG.pack(socket.AF_INET, index, state, 0, 0) + ipv4(nl.NDA_DST, ip)
    return head + mac(nl.NDA_LLADDR, lladdr) if lladdr else head


def fdb(index: int, lladdr: str, dst: IPv4Address | None = None) -> bytes:
    """Encode an FDB entry of a vxlan device, permanent if its destination is given."""
    state = nl.NUD_PERMANENT if dst else 0
    head = nl.NDMSG.pack(nl.AF_BRIDGE, index, state, nl.NTF_SELF, 0)
    head += mac(nl.NDA_LLADDR, lladdr)
    return head + ipv4(nl.NDA_DST, dst) if dst else head


def bpf(steps: Iterable[BpfStep]) -> bytes:
    """Encode a program of classic BPF."""
    return b"".join(struct.pack("=HBBI", c, yes, no, k & 0xFFFFFFFF) for c, yes, no, k in steps)
