"""Decodes the kernel's messages, and of their attributes only those that the plugin needs.

pyroute2 decodes all, which takes six times as long or more (`encoder` has the numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from sys import byteorder
from typing import NamedTuple

from driver.host.netlink import constants as nl
from driver.model.records import ALIAS_PREFIX, ANY, BRIDGE_PREFIX, FLANNEL_PREFIX, HOST_END_PREFIX

_IPV4_BYTES = 4
_PREFIXES = {"bridge": BRIDGE_PREFIX, "veth": HOST_END_PREFIX, "vxlan": FLANNEL_PREFIX}


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, number and all of each message."""
    offset = 0
    while offset < len(data):
        length, kind, flags, number, _ = nl.NLMSGHDR.unpack_from(data, offset)
        yield kind, flags, number, data[offset : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Decode the attributes from an offset on, by kind."""
    found = {}
    end, head, mask = len(data), nl.NLATTR.unpack_from, nl.NLA_TYPE_MASK
    while offset + 4 <= end:
        length, kind = head(data, offset)
        found[kind & mask] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def text(payload: bytes) -> str:
    """Decode a string."""
    return payload.rstrip(b"\0").decode(errors="replace")


def integer(payload: bytes) -> int:
    """Decode a number of the machine's byte order; 0 for none."""
    return int.from_bytes(payload, byteorder)


def ipv4(payload: bytes) -> IPv4Address:
    """Decode an IPv4 address; 0.0.0.0 for none."""
    return IPv4Address(payload) if len(payload) == _IPV4_BYTES else ANY


class Link(NamedTuple):
    """A link of the host; `number` is its index. `kind`: "" for hardware; `master`: 0 for none.

    `carrier`: both ends of a veth are up. `detail`: the attributes that only its kind has.
    `peer`: the index of a veth's other end, in the namespace that `elsewhere` numbers; None: here.
    """

    number: int
    name: str
    kind: str
    up: bool
    carrier: bool
    master: int
    mtu: int
    mac: str
    alias: str
    group: int
    hairpin: bool
    detail: bytes
    peer: int = 0
    elsewhere: int | None = None

    @property
    def ours(self) -> bool:
        """Whether it has our name and our mark: the group, or the alias."""
        prefix = _PREFIXES.get(self.kind)
        return (
            prefix is not None
            and self.name.startswith(prefix)
            and (self.group in (nl.GROUP, nl.DOOMED) or self.alias.startswith(ALIAS_PREFIX))
        )

    @property
    def local(self) -> bool:
        """Whether it leads to something on this host, and not out of it."""
        return self.kind in ("veth", "tun")

    @property
    def owner(self) -> str:
        """The Docker id in the alias; "" without one."""
        return self.alias.removeprefix(ALIAS_PREFIX) if self.ours else ""


def read_link(body: bytes) -> Link:
    """Decode a link."""
    _, number, flags, _ = nl.IFINFOMSG.unpack_from(body)
    found = attributes(body, nl.IFINFOMSG.size)
    info = attributes(found.get(nl.IFLA_LINKINFO, b""))
    bridged = info.get(nl.IFLA_INFO_SLAVE_KIND) == b"bridge\0"
    port = attributes(info.get(nl.IFLA_INFO_SLAVE_DATA, b"")) if bridged else {}
    elsewhere = found.get(nl.IFLA_LINK_NETNSID)
    return Link(
        number=number,
        name=text(found[nl.IFLA_IFNAME]),
        kind=text(info.get(nl.IFLA_INFO_KIND, b"")),
        up=bool(flags & nl.IFF_UP),
        carrier=bool(flags & nl.IFF_LOWER_UP),
        master=integer(found.get(nl.IFLA_MASTER, b"")),
        mtu=integer(found[nl.IFLA_MTU]),
        mac=found.get(nl.IFLA_ADDRESS, b"").hex(":"),
        alias=text(found.get(nl.IFLA_IFALIAS, b"")),
        group=integer(found.get(nl.IFLA_GROUP, b"")),
        hairpin=port.get(nl.IFLA_BRPORT_MODE) == b"\1",
        detail=info.get(nl.IFLA_INFO_DATA, b""),
        peer=integer(found.get(nl.IFLA_LINK, b"")),
        elsewhere=None if elsewhere is None else integer(elsewhere),
    )


class VxlanDetail(NamedTuple):
    """What only a vxlan device has. The kernel changes none of the first three.

    `parent`: the index of the link it sends by, 0 for none; `local`: 0.0.0.0 for none.
    """

    vni: int
    port: int
    gbp: bool
    parent: int
    local: IPv4Address
    learning: bool


def read_vxlan(link: Link) -> VxlanDetail:
    """Decode the details of a vxlan device."""
    found = attributes(link.detail)
    return VxlanDetail(
        integer(found.get(nl.IFLA_VXLAN_ID, b"")),
        int.from_bytes(found.get(nl.IFLA_VXLAN_PORT, b""), "big"),
        nl.IFLA_VXLAN_GBP in found,
        integer(found.get(nl.IFLA_VXLAN_LINK, b"")),
        ipv4(found.get(nl.IFLA_VXLAN_LOCAL, b"")),
        found.get(nl.IFLA_VXLAN_LEARNING) == b"\1",
    )
