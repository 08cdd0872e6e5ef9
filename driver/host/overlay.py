"""Makes the overlay's device, neighbours, FDB entries and routes be what a plan says.

Imports `news`, and `events`, through whose channel thousands of entries go in few calls; it
encodes and decodes them here, in microseconds, where pyroute2 takes a hundred for each.
Source: linux/{if_link,neighbour,rtnetlink}.h, drivers/net/vxlan/vxlan_core.c.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from sys import byteorder
from typing import ClassVar

from driver.errors import HostError
from driver.host.netlink import channel
from driver.host.netlink.channel import Channel, Link, Request, attribute, attributes, integer
from driver.host.netlink.monitor import Monitor
from driver.model.objects import RANK, Fdb, HostObject, Neighbour, PeerRoute, Plan, Vxlan
from driver.model.records import ALIAS_PREFIX, ANY

NEW, REPLACE = 0x600, 0x500  # make it, and fail if it exists; make it, or make it so
UP = 1
BRIDGE, SELF, PERMANENT = 7, 2, 0x80  # of FDB entries: family, flag; state of all of ours
ONLINK, ANY_SCOPE = 4, 255  # flag of a route; scope of one that is removed
MAC, NAME, MTU, LINKINFO, ALIAS, IN_GROUP = 1, 3, 4, 18, 20, 27  # attributes of a link,
KIND, DETAIL = 1, 2  # of its LINKINFO,
ID, PARENT, LOCAL, LEARNING, PORT, GBP = 1, 3, 4, 7, 15, 23  # of a vxlan's DETAIL,
IP, LLADDR, DEVICE = 1, 2, 8  # of a neighbour or FDB entry,
DST, OUT, GATEWAY, PRIORITY = 1, 4, 5, 6  # of a route
GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)
Entry = Neighbour | Fdb | PeerRoute


class OverlayAdapter:
    """The overlay's side of the host, in the namespace of the thread that makes it.

    Ours are vxlan devices by name and mark (`Link.ours`), what is permanent on them, and routes
    by protocol and metric. A device's address and setting are `kernel`'s, which makes its objects
    after this one.
    """

    kinds: ClassVar[tuple[type[HostObject], ...]] = (Vxlan, Neighbour, Fdb, PeerRoute)

    def __init__(self, news: Monitor | None = None) -> None:
        """Begin; `news` will not tell what this does."""
        self._channel, self._news = Channel(), news or Monitor()
        self._news.ignore(self._channel)

    def close(self) -> None:
        """Give the socket back."""
        self._channel.close()

    def observe(self) -> frozenset[HostObject]:
        """Give what the host has of ours; a device that is down differs from every wanted one."""
        links = self._channel.links()
        names = {index: link.name for index, link in links.items()}
        objects: set[HostObject] = set(self._routes(names))
        for link in links.values():
            if link.ours and link.kind == "vxlan":
                objects.add(_device(link, names))
                objects.update(self._neighbours(link), self._fdb(link))
        return frozenset(objects)

    def _routes(self, names: dict[int, str]) -> Iterator[PeerRoute]:
        """`ip route show table main proto 91 type unicast`."""
        asked = channel.ROUTE.pack(
            socket.AF_INET, 0, 0, 0, channel.MAIN_TABLE, channel.PROTOCOL, 0, channel.UNICAST, 0
        )
        for body in self._channel.ask(channel.GETROUTE, asked, channel.DUMP):
            _, length, *_, flags = channel.ROUTE.unpack_from(body)
            found = attributes(body, channel.ROUTE.size)
            if integer(found.get(PRIORITY, b"")) == channel.METRIC:
                dst, link = IPv4Network((_ip(found, DST), length)), integer(found.get(OUT, b""))
                onlink = bool(flags & ONLINK)
                yield PeerRoute(dst, _ip(found, GATEWAY), names.get(link, ""), onlink)

    def _neighbours(self, link: Link) -> Iterator[Neighbour]:
        """`ip neigh show dev flannel.1 nud permanent`."""
        asked = channel.NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0) + _number(DEVICE, link.number)
        for found in self._permanent(asked):
            yield Neighbour(link.name, _ip(found, IP), found.get(LLADDR, b"").hex(":"))

    def _fdb(self, link: Link) -> Iterator[Fdb]:
        """`bridge fdb show dev flannel.1`."""
        for found in self._permanent(channel.NEIGHBOUR.pack(BRIDGE, link.number, 0, 0, 0)):
            yield Fdb(link.name, found.get(LLADDR, b"").hex(":"), _ip(found, IP))

    def _permanent(self, asked: bytes) -> Iterator[dict[int, bytes]]:
        for body in self._channel.ask(channel.GETNEIGH, asked, channel.DUMP, fine=errno.ENODEV):
            _, _, state, _, _ = channel.NEIGHBOUR.unpack_from(body)
            if state & PERMANENT:
                yield attributes(body, channel.NEIGHBOUR.size)

    def apply(self, plan: Plan) -> None:
        """Carry a plan out; what fails does not keep the rest from being done.

        Errors: an ExceptionGroup of HostError, one for each object that failed, or for all on a
        link that is not there.
        """
        wanted = sorted((*plan.add, *(new for _, new in plan.change)), key=lambda t: RANK[type(t)])
        with self._news.hush():
            errors = [*self._drop(plan.remove), *self._each("remove", plan.remove, self._remove)]
            carried = self._carried([new.name for _, new in plan.change if isinstance(new, Vxlan)])
            errors += [*self._each("set up", wanted, self._ensure), *self._put(carried + wanted)]
        if errors:
            raise ExceptionGroup("the kernel refused changes", errors)

    def _carried(self, devices: list[str]) -> list[HostObject]:
        """List what is on devices that change: some changes make the kernel drop it."""
        there = self.observe() if devices else ()
        return [item for item in there if isinstance(item, Entry) and item.link in devices]

    def _each(
        self, verb: str, objects: Iterable[HostObject], act: Callable[[Vxlan], None]
    ) -> Iterator[HostError]:
        for device in objects:
            if isinstance(device, Vxlan):
                try:
                    act(device)
                except HostError as error:
                    yield error
                except OSError as error:
                    yield _refusal(verb, device, error)

    def _ensure(self, device: Vxlan) -> None:
        """`ip link add NAME address MAC type vxlan id VNI dev PARENT local IP dstport PORT`.

        Then `ip link set NAME mtu MTU alias …`. A device that cannot be changed is made again.
        """
        parent, link = self._there(device.parent), self._find(device.name)
        if link and _fixed(link) != (device.vni, device.port, device.gbp):
            self._remove(device)
            link = None
        detail = _number(ID, device.vni) + _number(PARENT, parent.number)
        detail += attribute(LOCAL, device.local.packed)
        detail += attribute(LEARNING, bytes([device.learning]))
        if link is None:
            detail += attribute(PORT, device.port.to_bytes(2, "big"))
            detail += attribute(GBP, b"") if device.gbp else b""
        which = channel.LINK.pack(0, 0, UP, UP) + _text(NAME, device.name)
        which += _number(IN_GROUP, channel.GROUP)
        info = attribute(LINKINFO, _text(KIND, "vxlan") + attribute(DETAIL, detail))
        if link is None or link.mac != device.mac:  # even the same costs all neighbours
            info += _mac(MAC, device.mac)
        try:
            self._channel.ask(channel.NEWLINK, which + info, 0 if link else NEW)
        except FileExistsError:
            raise self._taken(device) from None
        rest = _number(MTU, device.mtu) + _text(ALIAS, f"{ALIAS_PREFIX}vtep")
        self._channel.ask(channel.NEWLINK, which + rest)
        made = self._find(device.name)
        if made is None or made.mac != device.mac:
            raise HostError(
                f"link {device.name} does not keep the MAC {device.mac}, which peers send to; "
                "exclude it from udev's MACAddressPolicy and from NetworkManager"
            )

    def _taken(self, device: Vxlan) -> HostError:
        wanted, what = (device.vni, device.port), f"VNI {device.vni} on port {device.port}"
        for link in self._channel.links().values():
            if link.kind == "vxlan" and _fixed(link)[:2] == wanted:
                return HostError(f"link {link.name} has {what} already; delete it or use another")
        return HostError(f"cannot set up vxlan {device.name}: {what} is taken")

    def _remove(self, device: Vxlan) -> None:
        link = self._channel.link(device.name)
        if link and link.ours:
            which = channel.LINK.pack(0, link.number, 0, 0)
            self._channel.ask(channel.DELLINK, which, fine=errno.ENODEV)

    def _find(self, name: str) -> Link | None:
        link = self._channel.link(name)
        if link and not link.ours:
            raise HostError(
                f"link {name} exists and is not this plugin's but a flanneld's, it seems: stop "
                "that and delete the link, or use its lease (DOCKER_FLANNEL_LEASE=subnet-file)"
            )
        return link

    def _there(self, name: str) -> Link:
        if link := self._channel.link(name):
            return link
        raise HostError(f"link {name} is missing")

    def _put(self, objects: Iterable[HostObject]) -> Iterator[HostError]:
        entries, numbers = _entries(objects), dict[str, int]()
        ours = {e.link for e in entries if not isinstance(e, PeerRoute) or e.onlink}
        for name in dict.fromkeys(e.link for e in entries):
            try:
                link = self._find(name) if name in ours else None
                numbers[name] = (link or self._there(name)).number
            except HostError as error:
                yield error
        ready = [e for e in entries if e.link in numbers]
        refused = self._channel.tell([_addition(e, numbers[e.link]) for e in ready])
        yield from (_refusal("set up", ready[place], why) for place, why in refused.items())

    def _drop(self, objects: Iterable[HostObject]) -> Iterator[HostError]:
        entries = _entries(objects)
        names = {e.link for e in entries if not isinstance(e, PeerRoute)}
        links = {name: self._channel.link(name) for name in names}
        numbers = {name: link.number for name, link in links.items() if link and link.ours}
        there = [e for e in entries if isinstance(e, PeerRoute) or e.link in numbers]
        refused = self._channel.tell([_removal(e, numbers.get(e.link, 0)) for e in there])
        for place, why in refused.items():
            if why.errno not in GONE:
                yield _refusal("remove", there[place], why)


def _entries(objects: Iterable[HostObject]) -> list[Entry]:
    return [item for item in objects if isinstance(item, Entry)]


def _addition(entry: Entry, link: int) -> Request:
    match entry:
        case Neighbour(_, ip, mac):
            # ip neigh replace IP lladdr MAC dev LINK nud permanent
            body = channel.NEIGHBOUR.pack(socket.AF_INET, link, PERMANENT, 0, 0)
            return channel.NEWNEIGH, REPLACE, body + attribute(IP, ip.packed) + _mac(LLADDR, mac)
        case Fdb(_, mac, dst):
            # bridge fdb replace MAC dev LINK dst DST self permanent
            body = channel.NEIGHBOUR.pack(BRIDGE, link, PERMANENT, SELF, 0)
            return channel.NEWNEIGH, REPLACE, body + _mac(LLADDR, mac) + attribute(IP, dst.packed)
        case PeerRoute(dst, via, _, onlink):
            # ip route replace DST via VIA dev LINK [onlink] proto 91 metric 91000
            body = _route(dst, 0, ONLINK if onlink else 0) + attribute(GATEWAY, via.packed)
            return channel.NEWROUTE, REPLACE, body + _number(OUT, link)


def _removal(entry: Entry, link: int) -> Request:
    match entry:
        case Neighbour(_, ip):
            # ip neigh del IP dev LINK
            body = channel.NEIGHBOUR.pack(socket.AF_INET, link, 0, 0, 0)
            return channel.DELNEIGH, 0, body + attribute(IP, ip.packed)
        case Fdb(_, mac):
            # bridge fdb del MAC dev LINK self
            body = channel.NEIGHBOUR.pack(BRIDGE, link, 0, SELF, 0)
            return channel.DELNEIGH, 0, body + _mac(LLADDR, mac)
        case PeerRoute(dst):
            # ip route del DST proto 91 metric 91000
            return channel.DELROUTE, 0, _route(dst, ANY_SCOPE, 0)


def _route(dst: IPv4Network, scope: int, flags: int) -> bytes:
    family, length = socket.AF_INET, dst.prefixlen
    head = channel.ROUTE.pack(
        family, length, 0, 0, channel.MAIN_TABLE, channel.PROTOCOL, scope, channel.UNICAST, flags
    )
    return head + attribute(DST, dst.network_address.packed) + _number(PRIORITY, channel.METRIC)


def _device(link: Link, names: dict[int, str]) -> Vxlan:
    found = attributes(link.detail)
    vni, port, gbp = _fixed(link)
    return Vxlan(
        link.name,
        vni,
        port,
        _ip(found, LOCAL),
        names.get(integer(found.get(PARENT, b"")), ""),
        link.mac,
        link.mtu if link.up and link.group == channel.GROUP else 0,
        gbp,
        found.get(LEARNING) == b"\1",
    )


def _fixed(link: Link) -> tuple[int, int, bool]:
    """Give number, port and GBP of a vxlan device, which the kernel does not change."""
    found = attributes(link.detail)
    return integer(found.get(ID, b"")), int.from_bytes(found.get(PORT, b""), "big"), GBP in found


def _refusal(verb: str, item: HostObject, why: OSError) -> HostError:
    return HostError(f"cannot {verb} {' '.join(item.key).lower()}: {why.strerror}")


def _ip(found: dict[int, bytes], kind: int) -> IPv4Address:
    """Decode an IPv4 address; 0.0.0.0 for none."""
    payload = found.get(kind, b"")
    return IPv4Address(payload) if len(payload) == len(ANY.packed) else ANY


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, byteorder))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _mac(kind: int, value: str) -> bytes:
    return attribute(kind, bytes.fromhex(value.replace(":", "")))
