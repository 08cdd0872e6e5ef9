"""Listens for changes of links, addresses, routes and neighbours; reports those that matter."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

from driver.host.netlink import constants as nl
from driver.host.netlink import monitor_filter
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import Link, attributes, integer, read_link

_GROUPS = nl.RTNLGRP_LINK, nl.RTNLGRP_NEIGH, nl.RTNLGRP_IPV4_IFADDR, nl.RTNLGRP_IPV4_ROUTE
_BACKLOG_BYTES = 4 << 20
_LISTEN_S = 0.3
# states of an entry whose MAC the kernel has asked for; no entry of ours on a VTEP has them
_RESOLVED = nl.NUD_REACHABLE | nl.NUD_STALE | nl.NUD_DELAY | nl.NUD_PROBE

Report = Callable[[frozenset[str]], None]


def unreported(_names: frozenset[str]) -> None:
    """Ignore a report."""


class Monitor(Channel):
    """Reports the names of our links that may have drifted, and "" for changes of the host.

    It begins with `watch`. The kernel drops what comes in thousands and does not matter: entries of
    links that are no VTEPs, and changes by channels that are `ignore`d. It does not know who
    changed an FDB entry: we do so within `hush`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, Link] = {}
        self._risen = set[str]()
        self._filter = monitor_filter.Filter(self.socket)
        self.socket.setsockopt(socket.SOL_SOCKET, nl.SO_RCVBUFFORCE, _BACKLOG_BYTES)
        self.hush = self._filter.hush

    def ignore(self, channel: Channel) -> None:
        """Report nothing of addresses and routes that a channel changes."""
        self._filter.ignore(channel.port)

    def watch(
        self,
        links: Callable[[], dict[int, Link]],
        changed: Report,
        stop: threading.Event,
        risen: Report = unreported,
    ) -> None:
        """Report until `stop`; "" also where reports were lost.

        `links` lists all links. `risen` gets the host ends of veths whose other end came
        up, which is no drift.
        """
        self.subscribe(*_GROUPS)
        missed = not self._relist(links)
        while not stop.is_set():
            names, lost = self._read()
            if self._risen:
                risen(frozenset(self._risen))
                self._risen.clear()
            if lost or missed:
                missed = not self._relist(links)
                names.add("")
            if names:
                changed(frozenset(names))

    def _relist(self, links: Callable[[], dict[int, Link]]) -> bool:
        """Learn all links; return False where they change too fast to be listed now."""
        try:
            self._learn(links())
        except OSError:
            return False
        return True

    def _learn(self, links: dict[int, Link]) -> None:
        self._known = links
        self._filter.choose(link.number for link in links.values() if _is_vtep(link))

    def _read(self) -> tuple[set[str], bool]:
        """Return what is reported until nothing more comes, and whether some of it was lost."""
        names, lost = set[str](), False
        for kind, body in self.heard(_LISTEN_S):
            lost = lost or kind == nl.NLMSG_OVERRUN
            names.update(self._meaning(kind, body))
        return names, lost

    def _meaning(self, kind: int, body: bytes) -> Iterator[str]:
        if kind in (nl.RTM_NEWLINK, nl.RTM_DELLINK):
            if (family := nl.IFINFOMSG.unpack_from(body)[0]) == socket.AF_UNSPEC:
                yield from self._of_link(read_link(body), gone=kind == nl.RTM_DELLINK)
            elif family == nl.AF_BRIDGE and kind == nl.RTM_NEWLINK:
                yield from self._of_port(body)
        elif kind in (nl.RTM_NEWADDR, nl.RTM_DELADDR):
            yield from self._of_address(body)
        elif kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE):
            yield from self._of_route(body, gone=kind == nl.RTM_DELROUTE)
        elif kind in (nl.RTM_NEWNEIGH, nl.RTM_DELNEIGH):
            yield from self._of_entry(body, gone=kind == nl.RTM_DELNEIGH)

    def _of_link(self, link: Link, gone: bool) -> Iterator[str]:
        was = self._known.pop(link.number, None)
        if not gone:
            self._known[link.number] = link
        if _is_vtep(link) != (was is not None and not gone and _is_vtep(was)):
            self._learn(self._known)
        if link.ours and link.group == nl.DOOMED:
            return
        if link.ours and link.carrier and link.kind == "veth" and not (was and was.carrier):
            self._risen.add(link.name)
        if link.ours or (was and was.ours):
            if gone or (was and was.ours and _drifted(was, link)):
                yield _name(was or link)
        elif _matters(was, link, gone):
            yield ""

    def _of_port(self, body: bytes) -> Iterator[str]:
        """Read what a bridge reports of a port: a changed hairpin mode is reported only here."""
        _, number, *_ = nl.IFINFOMSG.unpack_from(body)
        port = attributes(attributes(body, nl.IFINFOMSG.size).get(nl.IFLA_PROTINFO, b""))
        link, hairpin = self._known.get(number), port.get(nl.IFLA_BRPORT_MODE) == b"\1"
        if link and link.ours and link.hairpin != hairpin:
            changed = self._known[number] = link._replace(hairpin=hairpin)
            if _drifted(link, changed):
                yield link.name

    def _of_address(self, body: bytes) -> Iterator[str]:
        link = self._known.get(nl.IFADDRMSG.unpack_from(body)[-1])
        if link is None or not link.ours:
            yield ""  # the host reaches other prefixes now, or has another public IP
        elif link.group != nl.DOOMED:
            yield _name(link)

    def _of_route(self, body: bytes, gone: bool) -> Iterator[str]:
        _, length, _, _, table, protocol, *_ = nl.RTMSG.unpack_from(body)
        if table != nl.RT_TABLE_MAIN:
            return
        found = attributes(body, nl.RTMSG.size)
        if integer(found.get(nl.RTA_PRIORITY, b"")) == nl.METRIC and not gone:
            yield ""  # it may have replaced one of ours: no others have this metric
        elif length == 0 or protocol == (nl.PROTOCOL if gone else nl.RTPROT_KERNEL):
            # A link that comes up reports its own prefix; its other routes went unreported.
            link = self._known.get(integer(found.get(nl.RTA_OIF, b"")))
            if length == 0 or gone or not (link and link.ours):
                yield ""

    def _of_entry(self, body: bytes, gone: bool) -> Iterator[str]:
        """Read a neighbour or an FDB entry on a VTEP: all of ours there are permanent."""
        family, index, state, _, _ = nl.NDMSG.unpack_from(body)
        link = self._known.get(index)
        if family == socket.AF_INET:
            lasting = gone or state & (nl.NUD_PERMANENT | _RESOLVED)
        else:
            lasting = family == nl.AF_BRIDGE and state & (nl.NUD_PERMANENT | nl.NUD_NOARP)
        if lasting and link and _is_vtep(link):
            yield ""


def _is_vtep(link: Link) -> bool:
    return link.ours and link.kind == "vxlan"


def _name(link: Link) -> str:
    """Return the name to report for a link of ours; "" for a VTEP, on which all peers depend."""
    return "" if link.kind == "vxlan" else link.name


def _drifted(was: Link, link: Link) -> bool:
    """Whether a change may be drift. A link has no alias until we have made all of it."""
    return bool(was.alias) and _watched(was) != _watched(link)


def _watched(link: Link) -> tuple[object, ...]:
    """Return what drift would change, but not a bridge's details: they include timers."""
    detail = link.detail if link.kind == "vxlan" else b""
    where = link.name, link.up, link.master
    return *where, link.mtu, link.mac, link.alias, link.group, link.hairpin, detail


def _matters(was: Link | None, link: Link, gone: bool) -> bool:
    """Whether a change of a foreign link may change the `Facts`."""
    if link.local:  # if it is up, it may be an uplink all the same
        return was is not None and was.up and link.up and was.mtu != link.mtu
    if gone or was is None:
        return gone or link.kind in ("bridge", "vxlan")
    return (was.up, was.master, was.mtu) != (link.up, link.master, link.mtu)
