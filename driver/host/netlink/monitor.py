"""Reads what the kernel reports of links, addresses, routes and neighbours, and tells what matters.

Imports only `events` and `news_filter`. Source: linux/{rtnetlink,neighbour}.h.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator

from driver.host.netlink import channel, monitor_filter
from driver.host.netlink.channel import Channel, Link, attributes, integer, messages, read_link

_SOL_NETLINK, _ADD_GROUP = 270, 1
_GROUPS = (1, 3, 5, 7)  # links, neighbours and FDB entries, IPv4 addresses, IPv4 routes
_BUFFER_FORCE = 33  # past the limit that sysctl sets
_BACKLOG_BYTES = 4 << 20
_LISTEN_S = 0.3
_KERNEL = 2  # protocol of the routes that come with an address
_PERMANENT, _STATIC = 0x80, 0x40  # states of an entry,
_RESOLVED = 0x1E  # and of one whose MAC was asked for and found; none on a VTEP is
_OIF, _PRIORITY = 4, 6  # attributes of a route
_PORT, _MODE = 12, 4  # of a link as its bridge tells of it: as a port, and that port's hairpin mode
_BRIDGE = 7  # family of FDB entries, and of what a bridge tells of its ports


Heard = Callable[[frozenset[str]], None]


def unheard(_names: frozenset[str]) -> None:
    """Do nothing about it."""


class Monitor(Channel):
    """What the kernel reports, as names of our links concerned and "" for news of the host.

    It begins with `watch`. What comes in thousands and is of no use is dropped before it wakes us:
    entries of other links than VTEPs, and what was done by channels that are `ignore`d. The kernel
    does not say who changed an FDB entry: who does so in this process is to `hush` the news.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, Link] = {}
        self._risen = set[str]()
        self._filter = monitor_filter.Filter(self.socket)
        self.socket.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, _BACKLOG_BYTES)
        self.hush = self._filter.hush

    def ignore(self, channel: Channel) -> None:
        """Report nothing of addresses and routes that a channel changes."""
        self._filter.ignore(channel.port)

    def watch(
        self,
        links: Callable[[], dict[int, Link]],
        changed: Heard,
        stop: threading.Event,
        risen: Heard = unheard,
    ) -> None:
        """Report until told to stop. What is lost to an overrun is reported as "".

        `risen` gets the host ends of veths whose other end came up, which is no drift.
        """
        for group in _GROUPS:
            self.socket.setsockopt(_SOL_NETLINK, _ADD_GROUP, group)
        self._learn(links())
        while not stop.is_set():
            names, lost = self._read()
            if self._risen:
                risen(frozenset(self._risen))
                self._risen.clear()
            if lost:
                self._learn(links())
                names.add("")
            if names:
                changed(frozenset(names))

    def _learn(self, links: dict[int, Link]) -> None:
        self._known = links
        self._filter.choose(link.number for link in links.values() if _is_vtep(link))

    def _read(self) -> tuple[set[str], bool]:
        """Give what is reported until nothing more comes, and whether some of it was lost."""
        names, lost = set[str](), False
        self.socket.settimeout(_LISTEN_S)
        while True:
            try:
                for kind, _, _, body in messages(self.socket.recv(channel.RECEIVE_BYTES)):
                    names.update(self._meaning(kind, body))
            except (TimeoutError, BlockingIOError):
                return names, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True  # told once: the kernel drops all that comes until this has been read
            self.socket.settimeout(0)

    def _meaning(self, kind: int, body: bytes) -> Iterator[str]:
        if kind in (channel.NEWLINK, channel.DELLINK):
            if (family := channel.LINK.unpack_from(body)[0]) == socket.AF_UNSPEC:
                yield from self._of_link(read_link(body), gone=kind == channel.DELLINK)
            elif family == _BRIDGE and kind == channel.NEWLINK:
                yield from self._of_port(body)
        elif kind in (channel.NEWADDR, channel.DELADDR):
            yield from self._of_address(body)
        elif kind in (channel.NEWROUTE, channel.DELROUTE):
            yield from self._of_route(body, gone=kind == channel.DELROUTE)
        elif kind in (channel.NEWNEIGH, channel.DELNEIGH):
            yield from self._of_entry(body, gone=kind == channel.DELNEIGH)

    def _of_link(self, link: Link, gone: bool) -> Iterator[str]:
        was = self._known.pop(link.number, None)
        if not gone:
            self._known[link.number] = link
        if _is_vtep(link) != (was is not None and not gone and _is_vtep(was)):
            self._learn(self._known)
        if link.ours and link.group == channel.DOOMED:
            return
        if link.ours and link.carrier and link.kind == "veth" and not (was and was.carrier):
            self._risen.add(link.name)
        if link.ours or (was and was.ours):
            if gone or (was and was.ours and _drifted(was, link)):
                yield _name(was or link)
        elif _matters(was, link, gone):
            yield ""

    def _of_port(self, body: bytes) -> Iterator[str]:
        """Read what a bridge tells of a port: only here it tells of a changed hairpin mode."""
        _, number, *_ = channel.LINK.unpack_from(body)
        port = attributes(attributes(body, channel.LINK.size).get(_PORT, b""))
        link, hairpin = self._known.get(number), port.get(_MODE) == b"\1"
        if link and link.ours and link.hairpin != hairpin:
            changed = self._known[number] = link._replace(hairpin=hairpin)
            if _drifted(link, changed):
                yield link.name

    def _of_address(self, body: bytes) -> Iterator[str]:
        link = self._known.get(channel.ADDRESS.unpack_from(body)[-1])
        if link is None or not link.ours:
            yield ""  # the host reaches other prefixes now, or has another public IP
        elif link.group != channel.DOOMED:
            yield _name(link)

    def _of_route(self, body: bytes, gone: bool) -> Iterator[str]:
        _, length, _, _, table, protocol, *_ = channel.ROUTE.unpack_from(body)
        if table != channel.MAIN_TABLE:
            return
        found = attributes(body, channel.ROUTE.size)
        if integer(found.get(_PRIORITY, b"")) == channel.METRIC and not gone:
            yield ""  # in the place of one of ours, or of none: others have no such metric
        elif length == 0 or protocol == (channel.PROTOCOL if gone else _KERNEL):
            # A link that comes up tells of its own prefix; its other routes went without a word.
            link = self._known.get(integer(found.get(_OIF, b"")))
            if length == 0 or gone or not (link and link.ours):
                yield ""

    def _of_entry(self, body: bytes, gone: bool) -> Iterator[str]:
        """Read of a neighbour or an FDB entry on a VTEP: all of ours there are permanent."""
        family, index, state, _, _ = channel.NEIGHBOUR.unpack_from(body)
        link = self._known.get(index)
        if family == socket.AF_INET:
            lasting = gone or state & (_PERMANENT | _RESOLVED)
        else:
            lasting = family == _BRIDGE and state & (_PERMANENT | _STATIC)
        if lasting and link and _is_vtep(link):
            yield ""


def _is_vtep(link: Link) -> bool:
    return link.ours and link.kind == "vxlan"


def _name(link: Link) -> str:
    """Give what news of a link of ours are told under: all peers hang on a VTEP."""
    return "" if link.kind == "vxlan" else link.name


def _drifted(was: Link, link: Link) -> bool:
    """Whether it may be drift. The alias comes last when a link is made: before it is not."""
    return bool(was.alias) and _watched(was) != _watched(link)


def _watched(link: Link) -> tuple[object, ...]:
    """Return what drift would change; a bridge's details are its timers."""
    detail = link.detail if link.kind == "vxlan" else b""
    where = link.name, link.up, link.master
    return *where, link.mtu, link.mac, link.alias, link.group, link.hairpin, detail


def _matters(was: Link | None, link: Link, gone: bool) -> bool:
    """Tell whether news of a foreign link may change the `Facts`."""
    if link.local:  # one that is up may be an uplink all the same
        return was is not None and was.up and link.up and was.mtu != link.mtu
    if gone or was is None:
        return gone or link.kind in ("bridge", "vxlan")
    return (was.up, was.master, was.mtu) != (link.up, link.master, link.mtu)
