"""Lets 127.0.0.1:PORT reach containers, and no container reach 127.0.0.1.

Answers need `route_localnet` on the bridge they come from, which would also let containers reach
what the host binds to 127.0.0.1 (CVE-2020-8558). The firewall's table drops that, but a flush takes
the table away. So each bridge has a guard besides: a tc filter where it hands packets up to the
host. It outlives every flush and this process, and goes with the link; frames between containers
do not pass it. `route_localnet` is on only behind a guard, and only while a port is published.

The guard drops IPv4 packets from 127.0.0.0/8, and those to it unless they bear our rules' mark:
where br_netfilter is at work, answers have their address translated back before they get here. It
drops frames with a second VLAN tag, since the kernel removes tags of VLAN 0 later. A packet can
also name 127.0.0.1 as a stage of its route: `accept_source_route` refuses such packets.

pyroute2 cannot encode the filter: its class for it (0.9.7) has the program as one number.
Source: net/sched/cls_bpf.c, net/core/dev.c.
"""

from __future__ import annotations

import errno
import socket
from sys import byteorder
from typing import ClassVar

from driver.errors import FlannelError, HostError
from driver.host.firewall.mark import JUDGED
from driver.host.netlink import constants as nl
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import Link, attributes, integer
from driver.host.netlink.encoder import attribute, bpf, nest, string, u32
from driver.host.sysctls import Sysctls
from driver.model.objects import HostObject, LoopbackGuard, Plan, Sysctl

HANDLE = nl.GROUP  # of our filter
_ALL_PROTOCOLS = socket.htons(3)
_NO_TRAFFIC_CONTROL = nl.RTM_NEWQDISC, errno.EOPNOTSUPP  # how a kernel answers that has none
_CHANGES = (nl.RTM_NEWQDISC, nl.RTM_DELQDISC, nl.RTM_NEWTFILTER, nl.RTM_DELTFILTER)

# of the packet itself, not of its bytes
_PROTOCOL, _MARK = nl.SKF_AD_OFF + nl.SKF_AD_PROTOCOL, nl.SKF_AD_OFF + nl.SKF_AD_MARK
_GO_ON, _DROP = 0xFFFFFFFF, 2  # go on to the next filter; drop the packet
_SOURCE, _DESTINATION = 26, 30  # behind 14 bytes of Ethernet; its first VLAN tag is kept apart
_STEPS = (
    (nl.BPF_LD_W, 0, 0, _PROTOCOL),
    (nl.BPF_JEQ, 0, 8, 0x0800),  # IPv4
    (nl.BPF_LD_W, 0, 0, _SOURCE),
    (nl.BPF_AND, 0, 0, 0xFF000000),
    (nl.BPF_JEQ, 8, 0, 0x7F000000),
    (nl.BPF_LD_W, 0, 0, _DESTINATION),
    (nl.BPF_AND, 0, 0, 0xFF000000),
    (nl.BPF_JEQ, 0, 4, 0x7F000000),
    (nl.BPF_LD_W, 0, 0, _MARK),
    (nl.BPF_JSET, 2, 3, JUDGED),
    (nl.BPF_JEQ, 2, 0, 0x8100),  # another VLAN tag
    (nl.BPF_JEQ, 1, 0, 0x88A8),
    (nl.BPF_RET, 0, 0, _GO_ON),
    (nl.BPF_RET, 0, 0, _DROP),
)
PROGRAM = bpf(_STEPS)
_OPTIONS = (
    attribute(nl.TCA_BPF_OPS_LEN, len(_STEPS).to_bytes(2, byteorder)),
    attribute(nl.TCA_BPF_OPS, PROGRAM),
    u32(nl.TCA_BPF_FLAGS, nl.TCA_BPF_FLAG_ACT_DIRECT),
)


class LoopbackGuards:
    """The guards and the setting of our bridges, in the namespace of the thread that makes this.

    `able`: the kernel has what guards need. Without, `route_localnet` stays off.
    """

    kinds: ClassVar[tuple[type[HostObject], ...]] = (LoopbackGuard,)

    def __init__(self, classifier: str = "bpf") -> None:
        """`classifier` is the kernel's name for the kind of filter."""
        self.able = True
        self._kind = classifier
        self._channel, self._reports = Channel(), Channel()
        self._reports.subscribe(nl.RTNLGRP_TC)
        self._settings = Sysctls()
        self._numbers: frozenset[int] = frozenset()

    def close(self) -> None:
        """Close the sockets; the guards stay."""
        self._channel.close()
        self._reports.close()

    def observe(self) -> frozenset[HostObject]:
        """List our bridges that have a guard; all of them where the kernel has none.

        Errors: OSError.
        """
        ours = [link for link in self._channel.links("bridge").values() if link.ours]
        self._numbers = frozenset(link.number for link in ours)
        return frozenset(
            LoopbackGuard(link.name, self._settings.read(_routing(link.name, on=True)) == "1")
            for link in ours
            if not self.able or self._guarded(link)
        )

    def disturbed(self) -> bool:
        """Whether somebody changed a guard, or a setting, since this was last asked; cheap."""
        reported = [self._matters(kind, body) for kind, body in self._reports.heard()]
        return any([*reported, self._settings.disturbed()])

    def _matters(self, kind: int, body: bytes) -> bool:
        """Whether others changed the filters of our bridges, or may have."""
        if kind not in _CHANGES:
            return kind == nl.NLMSG_OVERRUN
        by_us = nl.NLMSGHDR.unpack_from(body)[4] == self._channel.port
        return not by_us and nl.TCMSG.unpack_from(body)[1] in self._numbers

    def apply(self, plan: Plan) -> None:
        """Carry out a plan; one failure does not stop the rest.

        Errors: an ExceptionGroup of HostError, one for each object that failed.
        """
        errors: list[FlannelError] = []
        for item in (*plan.remove, *plan.new()):
            if isinstance(item, LoopbackGuard):
                try:
                    self._ensure(item, item in plan.new())
                except HostError as error:
                    errors.append(error)
                except OSError as error:
                    what = f"cannot guard 127.0.0.0/8 on {item.link}"
                    errors.append(HostError(f"{what}: {error.strerror}"))
        if errors:
            raise ExceptionGroup("the kernel refused changes", errors)

    def _ensure(self, item: LoopbackGuard, wanted: bool) -> None:
        """Set up the guard, then the setting. An unwanted guard stays until its bridge goes."""
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
        self._settings.write(_no_source_route(link.name))
        self._settings.write(_routing(link.name, on=wanted and item.routed and self.able))

    def _guarded(self, link: Link) -> bool:
        source_routed = self._settings.read(_no_source_route(link.name)) != "0"
        return not source_routed and any(map(_is_guard, self._filters(link)))

    def _filters(self, link: Link) -> list[bytes]:
        """`tc filter show dev LINK ingress`."""
        asked = nl.TCMSG.pack(0, link.number, 0, nl.TC_H_INGRESS, 0)
        return self._channel.dump(nl.RTM_GETTFILTER, asked, fine=errno.ENODEV)

    def _guard(self, link: Link) -> None:
        """`tc qdisc add dev LINK clsact; tc filter add dev LINK ingress bpf direct-action …`.

        Others' qdisc and filters stay. Where the kernel cannot, `able` becomes False.
        """
        qdisc = nl.TCMSG.pack(0, link.number, nl.TC_H_CLSACT_HANDLE, nl.TC_H_CLSACT, 0)
        qdisc += string(nl.TCA_KIND, "clsact")
        self.able = self._takes(nl.RTM_NEWQDISC, qdisc, nl.NEW)
        if self.able:
            info = _place(self._filters(link)) << 16 | _ALL_PROTOCOLS
            request = nl.TCMSG.pack(0, link.number, HANDLE, nl.TC_H_INGRESS, info)
            request += string(nl.TCA_KIND, self._kind) + nest(nl.TCA_OPTIONS, *_OPTIONS)
            self.able = self._takes(nl.RTM_NEWTFILTER, request, nl.NLM_F_CREATE)

    def _takes(self, kind: int, request: bytes, flags: int) -> bool:
        """Make a qdisc or filter; return whether the kernel has such a kind. Errors: OSError."""
        try:
            self._channel.ask(kind, request, flags, fine=errno.EEXIST)
        except OSError as error:
            if error.errno != errno.ENOENT and (kind, error.errno) != _NO_TRAFFIC_CONTROL:
                raise
            return False
        return True


def _is_guard(body: bytes) -> bool:
    """Whether a filter is our guard, unchanged."""
    _, _, handle, _, info = nl.TCMSG.unpack_from(body)
    found = attributes(body, nl.TCMSG.size)
    options = attributes(found.get(nl.TCA_OPTIONS, b""))
    return (
        (found.get(nl.TCA_KIND), handle, info & 0xFFFF) == (b"bpf\0", HANDLE, _ALL_PROTOCOLS)
        and options.get(nl.TCA_BPF_OPS) == PROGRAM
        and integer(options.get(nl.TCA_BPF_FLAGS, b"")) == nl.TCA_BPF_FLAG_ACT_DIRECT
    )


def _place(filters: list[bytes]) -> int:
    """Return the priority for our filter: the one it has, else the first that is free."""
    taken = set[int]()
    for body in filters:
        _, _, handle, _, info = nl.TCMSG.unpack_from(body)
        priority: int = info >> 16
        if handle == HANDLE and attributes(body, nl.TCMSG.size).get(nl.TCA_KIND) == b"bpf\0":
            return priority
        taken.add(priority)
    return next(number for number in range(1, 1 << 16) if number not in taken)


def _routing(link: str, *, on: bool) -> Sysctl:
    return Sysctl(link, "ipv4", "route_localnet", str(int(on)))


def _no_source_route(link: str) -> Sysctl:
    return Sysctl(link, "ipv4", "accept_source_route", "0")
