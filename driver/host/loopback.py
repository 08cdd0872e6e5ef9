"""Lets 127.0.0.1:PORT lead to containers, and never a container to 127.0.0.1. Over `events`.

`route_localnet` on a bridge lets answers come back from there, and would also let containers reach
what the host binds to 127.0.0.1 (CVE-2020-8558). The firewall's table drops that, but a flush takes
the table away. So there is a guard besides: a filter of tc where a bridge hands packets up to the
host. It outlives every flush and this process, and goes with the link; frames between containers
do not come by. `route_localnet` is on only behind a guard, and only while a port is published.

The guard drops IPv4 packets from 127.0.0.0/8, and those for it unless they bear the mark of our
rules: where br_netfilter is at work, answers have their address translated back before they get
here. It drops frames with a second VLAN tag, for the kernel takes off tags of VLAN 0 after this.
A packet can also name 127.0.0.1 as a stage of its route: the bridge takes no such packets.

Source: linux/{pkt_sched,pkt_cls,filter}.h, net/sched/cls_bpf.c, net/core/dev.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from sys import byteorder
from typing import ClassVar

from driver.core.firewall import JUDGED
from driver.errors import FlannelError, HostError
from driver.host.netlink import channel
from driver.host.netlink.channel import Channel, Link, attribute, attributes, messages
from driver.host.sysctls import Sysctls
from driver.model.objects import HostObject, LoopbackGuard, Plan, Sysctl

NEWQDISC, DELQDISC, NEWTFILTER, DELTFILTER, GETTFILTER = 36, 37, 44, 45, 46
TRAFFIC = struct.Struct("=16xB3xiIII")  # header, family, index, handle, parent, info
HANDLE = channel.GROUP  # of our filter
_NEW, _MAKE = 0x600, 0x400  # make it, and fail if it exists; make it or change it
_QDISC, _CLSACT, _INGRESS = 0xFFFF0000, 0xFFFFFFF1, 0xFFFFFFF2
_ALL_PROTOCOLS = socket.htons(3)
_KIND, _OPTIONS = 1, 2
_LENGTH, _PROGRAM, _FLAGS = 4, 5, 8  # of a filter's options
_DIRECT = (1).to_bytes(4, byteorder)  # the flag that makes the program's result the verdict
_NO_TRAFFIC_CONTROL = NEWQDISC, errno.EOPNOTSUPP  # how a kernel answers that has none
_SOL_NETLINK, _ADD_GROUP, _GROUP = 270, 1, 4  # the group that hears of qdiscs and filters
_CHANGES = (NEWQDISC, DELQDISC, NEWTFILTER, DELTFILTER)
_PORT = struct.Struct("=12xI")  # of a netlink message: who asked for what it tells

_LOAD, _AND, _IF_EQUAL, _IF_BIT, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
_PROTOCOL, _MARK = -0x1000, -0x1000 + 20  # of the packet itself, not of its bytes
_GO_ON, _DROP = 0xFFFFFFFF, 2  # to the next filter; the packet ends here
_SOURCE, _DESTINATION = 26, 30  # behind 14 bytes of Ethernet; its first VLAN tag is kept apart
_STEPS = (
    (_LOAD, 0, 0, _PROTOCOL),
    (_IF_EQUAL, 0, 8, 0x0800),  # IPv4
    (_LOAD, 0, 0, _SOURCE),
    (_AND, 0, 0, 0xFF000000),
    (_IF_EQUAL, 8, 0, 0x7F000000),
    (_LOAD, 0, 0, _DESTINATION),
    (_AND, 0, 0, 0xFF000000),
    (_IF_EQUAL, 0, 4, 0x7F000000),
    (_LOAD, 0, 0, _MARK),
    (_IF_BIT, 2, 3, JUDGED),
    (_IF_EQUAL, 2, 0, 0x8100),  # another VLAN tag
    (_IF_EQUAL, 1, 0, 0x88A8),
    (_RETURN, 0, 0, _GO_ON),
    (_RETURN, 0, 0, _DROP),
)
PROGRAM = b"".join(struct.pack("=HBBI", c, y, n, k & 0xFFFFFFFF) for c, y, n, k in _STEPS)


class LoopbackGuards:
    """The guards and the setting of our bridges, in the namespace of the thread that makes this.

    `able`: the kernel has what guards are made of. Where not, nothing is routed.
    """

    kinds: ClassVar[tuple[type[HostObject], ...]] = (LoopbackGuard,)

    def __init__(self, classifier: str = "bpf") -> None:
        """Begin to listen, too; `classifier` is the kernel's name for the kind of filter."""
        self.able = True
        self._kind = classifier.encode() + b"\0"
        self._channel, self._news = Channel(), Channel()
        self._news.socket.setsockopt(_SOL_NETLINK, _ADD_GROUP, _GROUP)
        self._news.socket.setblocking(False)
        self._settings = Sysctls()
        self._numbers: frozenset[int] = frozenset()

    def close(self) -> None:
        """Give the sockets back; the guards stay."""
        self._channel.close()
        self._news.close()

    def observe(self) -> frozenset[HostObject]:
        """List our bridges that have a guard; all of them where the kernel has none.

        Errors: OSError.
        """
        links = self._channel.links().values()
        ours = [link for link in links if link.ours and link.kind == "bridge"]
        self._numbers = frozenset(link.number for link in ours)
        return frozenset(
            LoopbackGuard(link.name, self._settings.read(_routing(link.name, on=True)) == "1")
            for link in ours
            if not self.able or self._guarded(link)
        )

    def disturbed(self) -> bool:
        """Whether somebody changed a guard, or a setting, since this was last asked; cheap."""
        told, changed = self._told(), self._settings.disturbed()
        return told or changed

    def _told(self) -> bool:
        """Read what the kernel reports of filters: whether others changed those of our bridges."""
        own, found = self._channel.socket.getsockname()[0], False
        while True:
            try:
                data = self._news.socket.recv(channel.RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            for kind, _, _, body in messages(data):
                by, number = _PORT.unpack_from(body)[0], TRAFFIC.unpack_from(body)[1]
                told = kind in _CHANGES and by != own and number in self._numbers
                found = found or told

    def apply(self, plan: Plan) -> None:
        """Carry a plan out; what fails does not keep the rest from being done.

        Errors: an ExceptionGroup of HostError, one for each object that failed.
        """
        come = [*plan.add, *(new for _, new in plan.change)]
        errors: list[FlannelError] = []
        for item in [*plan.remove, *come]:
            if isinstance(item, LoopbackGuard):
                try:
                    self._settle(item, item in come)
                except HostError as error:
                    errors.append(error)
                except OSError as error:
                    what = f"cannot guard 127.0.0.0/8 on {item.link}"
                    errors.append(HostError(f"{what}: {error.strerror}"))
        if errors:
            raise ExceptionGroup("the kernel refused changes", errors)

    def _settle(self, item: LoopbackGuard, wanted: bool) -> None:
        """Set up the guard, then the setting. What is not wanted ends; its guard goes with it."""
        link = self._channel.link(item.link)
        if link is None or not link.ours:
            if wanted:
                raise HostError(f"link {item.link} is missing")
            return
        self._numbers |= {link.number}
        if wanted and self.able and not self._guarded(link):
            try:
                self._guard(link)
            except OSError:
                self._settings.write(_routing(link.name, on=False))
                raise
        self._settings.write(_no_stages(link.name))
        self._settings.write(_routing(link.name, on=wanted and item.routed and self.able))

    def _guarded(self, link: Link) -> bool:
        by_stages = self._settings.read(_no_stages(link.name)) != "0"
        return not by_stages and any(map(_is_guard, self._filters(link)))

    def _filters(self, link: Link) -> list[bytes]:
        """`tc filter show dev LINK ingress`."""
        asked = TRAFFIC.pack(0, link.number, 0, _INGRESS, 0)
        return self._channel.ask(GETTFILTER, asked, channel.DUMP, fine=errno.ENODEV)

    def _guard(self, link: Link) -> None:
        """`tc qdisc add dev LINK clsact; tc filter add dev LINK ingress bpf direct-action …`.

        Others' qdisc and filters stay. Where the kernel cannot, `able` becomes False.
        """
        qdisc = TRAFFIC.pack(0, link.number, _QDISC, _CLSACT, 0) + attribute(_KIND, b"clsact\0")
        options = attribute(_LENGTH, len(_STEPS).to_bytes(2, byteorder))
        options += attribute(_PROGRAM, PROGRAM) + attribute(_FLAGS, _DIRECT)
        self.able = self._takes(NEWQDISC, qdisc, _NEW)
        if self.able:
            info = _place(self._filters(link)) << 16 | _ALL_PROTOCOLS
            request = TRAFFIC.pack(0, link.number, HANDLE, _INGRESS, info)
            request += attribute(_KIND, self._kind) + attribute(_OPTIONS, options)
            self.able = self._takes(NEWTFILTER, request, _MAKE)

    def _takes(self, kind: int, request: bytes, flags: int) -> bool:
        """Have a qdisc or filter made; whether the kernel has such an object. Errors: OSError."""
        try:
            self._channel.ask(kind, request, flags, fine=errno.EEXIST)
        except OSError as error:
            if error.errno != errno.ENOENT and (kind, error.errno) != _NO_TRAFFIC_CONTROL:
                raise
            return False
        return True


def _is_guard(body: bytes) -> bool:
    """Whether a filter is our guard, and is whole."""
    _, _, handle, _, info = TRAFFIC.unpack_from(body)
    found = attributes(body, TRAFFIC.size)
    options = attributes(found.get(_OPTIONS, b""))
    return (
        (found.get(_KIND), handle, info & 0xFFFF) == (b"bpf\0", HANDLE, _ALL_PROTOCOLS)
        and options.get(_PROGRAM) == PROGRAM
        and options.get(_FLAGS) == _DIRECT
    )


def _place(filters: list[bytes]) -> int:
    """Return the priority for our filter: the one it has, else the first that is free."""
    taken = set[int]()
    for body in filters:
        _, _, handle, _, info = TRAFFIC.unpack_from(body)
        priority: int = info >> 16
        if handle == HANDLE and attributes(body, TRAFFIC.size).get(_KIND) == b"bpf\0":
            return priority
        taken.add(priority)
    return next(number for number in range(1, 1 << 16) if number not in taken)


def _routing(link: str, *, on: bool) -> Sysctl:
    return Sysctl(link, "ipv4", "route_localnet", str(int(on)))


def _no_stages(link: str) -> Sysctl:
    return Sysctl(link, "ipv4", "accept_source_route", "0")
