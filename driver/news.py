"""Reads what the kernel reports of links, addresses, routes and neighbours, and tells what matters.

Imports only `events`. Source: linux/{rtnetlink,neighbour,filter}.h.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from driver import events
from driver.events import Channel, Link, attributes, integer, messages, read_link

_SOL_NETLINK, _ADD_GROUP = 270, 1
_GROUPS = (1, 3, 5, 7)  # links, neighbours and FDB entries, IPv4 addresses, IPv4 routes
_BUFFER_FORCE = 33  # past the limit that sysctl sets
_BACKLOG_BYTES = 4 << 20
_LISTEN_S = 0.3
_KERNEL = 2  # protocol of the routes that come with an address
_PERMANENT = 0x80  # state of an entry
_OIF = 4  # attribute of a route
_BRIDGE = 7  # family of FDB entries

# What comes in thousands and is of no use is dropped before it wakes us: neighbours that come or
# change, as they do all the time on a busy link, and routes of ours that come.
_ATTACH_FILTER = 26
_LOAD_HALF, _LOAD_BYTE, _IF_EQUAL, _RETURN = 0x28, 0x30, 0x15, 0x06
_FILTER = (
    (_LOAD_HALF, 0, 0, 4),  # the message's kind
    (_IF_EQUAL, 4, 0, socket.htons(events.NEWNEIGH)),
    (_IF_EQUAL, 0, 2, socket.htons(events.NEWROUTE)),
    (_LOAD_BYTE, 0, 0, 21),  # the route's protocol
    (_IF_EQUAL, 1, 0, events.PROTOCOL),
    (_RETURN, 0, 0, 0xFFFFFFFF),  # take it
    (_RETURN, 0, 0, 0),  # drop it
)


Heard = Callable[[frozenset[str]], None]


def unheard(_names: frozenset[str]) -> None:
    """Do nothing about it."""


class News(Channel):
    """What the kernel reports, as names of our links concerned and "" for news of the host."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, Link] = {}
        self._risen = set[str]()
        self.socket.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, _BACKLOG_BYTES)
        steps = b"".join(struct.pack("=HBBI", *step) for step in _FILTER)
        code = ctypes.create_string_buffer(steps)
        program = struct.pack("@HP", len(_FILTER), ctypes.addressof(code))
        self.socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
        for group in _GROUPS:
            self.socket.setsockopt(_SOL_NETLINK, _ADD_GROUP, group)

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
        self._known = links()
        while not stop.is_set():
            names, lost = self._read()
            if self._risen:
                risen(frozenset(self._risen))
                self._risen.clear()
            if lost:
                self._known = links()
                names.add("")
            if names:
                changed(frozenset(names))

    def _read(self) -> tuple[set[str], bool]:
        """Give what is reported until nothing more comes, and whether some of it was lost."""
        names, lost = set[str](), False
        self.socket.settimeout(_LISTEN_S)
        while True:
            try:
                for kind, _, _, body in messages(self.socket.recv(events.RECEIVE_BYTES)):
                    names.update(self._meaning(kind, body))
            except (TimeoutError, BlockingIOError):
                return names, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True  # told once: the kernel drops all that comes until this has been read
            self.socket.settimeout(0)

    def _meaning(self, kind: int, body: bytes) -> Iterator[str]:
        if (
            kind in (events.NEWLINK, events.DELLINK)
            and events.LINK.unpack_from(body)[0] == socket.AF_UNSPEC
        ):
            yield from self._of_link(read_link(body), gone=kind == events.DELLINK)
        elif kind in (events.NEWADDR, events.DELADDR):
            yield from self._of_address(body, gone=kind == events.DELADDR)
        elif kind in (events.NEWROUTE, events.DELROUTE):
            yield from self._of_route(body, gone=kind == events.DELROUTE)
        elif kind == events.DELNEIGH:
            yield from self._of_lost_entry(body)

    def _of_link(self, link: Link, gone: bool) -> Iterator[str]:
        was = self._known.pop(link.number, None)
        if not gone:
            self._known[link.number] = link
        if link.ours and link.group == events.DOOMED:
            return
        if link.ours and link.carrier and link.kind == "veth" and not (was and was.carrier):
            self._risen.add(link.name)
        if link.ours or (was and was.ours):
            if gone or (was and _drifted(was, link)):
                yield _name(was or link)
        elif _matters(was, link, gone):
            yield ""

    def _of_address(self, body: bytes, gone: bool) -> Iterator[str]:
        link = self._known.get(events.ADDRESS.unpack_from(body)[-1])
        if link is None or not link.ours:
            yield ""  # the host reaches other prefixes now, or has another public IP
        elif gone and link.group != events.DOOMED:
            yield _name(link)

    def _of_route(self, body: bytes, gone: bool) -> Iterator[str]:
        _, length, _, _, table, protocol, *_ = events.ROUTE.unpack_from(body)
        if table == events.MAIN_TABLE and (
            length == 0 or protocol == (events.PROTOCOL if gone else _KERNEL)
        ):
            # A link that comes up tells of its own prefix; its other routes went without a word.
            link = self._known.get(integer(attributes(body, events.ROUTE.size).get(_OIF, b"")))
            if length == 0 or gone or not (link and link.ours):
                yield ""

    def _of_lost_entry(self, body: bytes) -> Iterator[str]:
        family, index, state, _, _ = events.NEIGHBOUR.unpack_from(body)
        link = self._known.get(index)
        lasting = family == socket.AF_INET or (family == _BRIDGE and state & _PERMANENT)
        if lasting and link and link.ours and link.kind == "vxlan":
            yield ""


def _name(link: Link) -> str:
    """Give what news of a link of ours are told under: all peers hang on a VTEP."""
    return "" if link.kind == "vxlan" else link.name


def _drifted(was: Link, link: Link) -> bool:
    """Tell drift from the steps in which a link is made: it gets its master and goes up."""
    return was.up and (
        not link.up
        or (was.name, was.mtu, was.mac) != (link.name, link.mtu, link.mac)
        or was.master not in (0, link.master)
    )


def _matters(was: Link | None, link: Link, gone: bool) -> bool:
    """Tell whether news of a foreign link may change the `Facts`."""
    if link.local:  # one that is up may be an uplink all the same
        return was is not None and was.up and link.up and was.mtu != link.mtu
    if gone or was is None:
        return gone or link.kind in ("bridge", "vxlan")
    return (was.up, was.master, was.mtu) != (link.up, link.master, link.mtu)
