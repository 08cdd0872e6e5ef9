"""Reads rtnetlink: replies, dumps and news, decoding only the attributes the plugin needs.

pyroute2 decodes all of them, at 0.3 ms for each link of a dump; this takes some 20 µs.
Imports only `model`. Source: linux/{netlink,rtnetlink,if_link,if_addr}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from sys import byteorder
from typing import NamedTuple

from driver.model import ALIAS_PREFIX, BRIDGE_PREFIX, HOST_END_PREFIX

PROTOCOL = 91  # of our routes; iproute2's rt_protos and the kernel assign it to nobody
GROUP = 26220  # of our links; the kernel takes it when it makes a link, an alias only later
DOOMED = GROUP + 1  # of those that are being removed: together, in one grace period
MAIN_TABLE = 254
DUMP = 0x300

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_DELADDR, _NEWROUTE, _DELROUTE = 21, 24, 25
_ERROR, _DONE = 2, 3
_ASK, _INTERRUPTED, _EXPLAINED = 0x5, 0x10, 0x200
_SOL_NETLINK, _ADD_GROUP, _CAP_ACK, _EXT_ACK, _STRICT = 270, 1, 10, 11, 12
_GROUPS = (1, 5, 7)  # links, IPv4 addresses, IPv4 routes
_NO_STATISTICS = (8).to_bytes(4, byteorder)
_BUFFER_FORCE = 33  # past the limit that sysctl sets
_RECEIVE_BYTES, _BACKLOG_BYTES = 1 << 16, 4 << 20
_DUMP_ATTEMPTS = 10
_LISTEN_S = 0.3

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=16xBxxxiII")  # header, family, index, flags, change
_ADDRESS = struct.Struct("=16x4Bi")  # header, family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=16x8BI")  # header, family, dst length, -, -, table, protocol, -, -, -
_CODE = struct.Struct("=16xi")  # header, negative errno; in an error the refused header follows


class Link(NamedTuple):
    """A link of the host; `number` is its index. `kind`: "" for hardware; `master`: 0 for none."""

    number: int
    name: str
    kind: str
    up: bool
    master: int
    mtu: int
    mac: str
    alias: str
    group: int
    hairpin: bool

    @property
    def ours(self) -> bool:
        """Tell whether it has our name and our mark: the group, or the alias."""
        prefix = {"bridge": BRIDGE_PREFIX, "veth": HOST_END_PREFIX}.get(self.kind)
        return (
            prefix is not None
            and self.name.startswith(prefix)
            and (self.group in (GROUP, DOOMED) or self.alias.startswith(ALIAS_PREFIX))
        )

    @property
    def local(self) -> bool:
        """Tell whether it leads to something on this host, and not out of it."""
        return self.kind in ("veth", "tun")

    @property
    def owner(self) -> str:
        """Give the Docker id in the alias, "" without one."""
        return self.alias.removeprefix(ALIAS_PREFIX) if self.ours else ""


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute."""
    size = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(size, kind) + payload + bytes(-size % 4)


def _attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    found = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")


def _number(payload: bytes) -> int:
    return int.from_bytes(payload, byteorder)


def _link(body: bytes) -> Link:
    _, number, flags, _ = _LINK.unpack_from(body)
    found = _attributes(body, _LINK.size)
    detail = _attributes(found.get(18, b""))
    port = _attributes(detail.get(5, b"")) if detail.get(4) == b"bridge\0" else {}
    return Link(
        number=number,
        name=_text(found[3]),
        kind=_text(detail.get(1, b"")),
        up=bool(flags & 1),
        master=_number(found.get(10, b"")),
        mtu=_number(found[4]),
        mac=found.get(1, b"").hex(":"),
        alias=_text(found.get(20, b"")),
        group=_number(found.get(27, b"")),
        hairpin=port.get(4) == b"\1",
    )


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, flags, number, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, number, data[offset : offset + length]
        offset += (length + 3) & ~3


def _refusal(code: int, kind: int, flags: int, body: bytes) -> OSError:
    """Give the kernel's reason: its sentence when it sends one, else the errno's."""
    start = _CODE.size + (_HEADER.size if kind == _ERROR else 0)
    told = _attributes(body, start) if flags & _EXPLAINED else {}
    return OSError(code, _text(told[1]) if 1 in told else os.strerror(code))


class Channel:
    """A netlink socket into the namespace of the thread that makes it. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def ask(self, kind: int, request: bytes, flags: int = 0, fine: int = 0) -> list[bytes]:
        """Send a message, of which it writes the header, and give the messages of the answer.

        Errors: OSError, the kernel's refusal, but for the errno that is `fine`.
        """
        for _ in range(_DUMP_ATTEMPTS):
            with self._lock:
                self._number += 1
                header = _HEADER.pack(len(request), kind, flags | _ASK, self._number, 0)
                self._socket.send(header + request[_HEADER.size :])
                whole, answer = self._answer(fine)
            if whole:
                return answer
        raise OSError(errno.EAGAIN, "the list changed each time it was read")

    def _answer(self, fine: int) -> tuple[bool, list[bytes]]:
        whole, bodies = True, list[bytes]()
        while True:
            for kind, flags, number, body in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if number != self._number:
                    continue
                whole = whole and not flags & _INTERRUPTED
                if kind in (_ERROR, _DONE):
                    code = -_CODE.unpack_from(body)[0]
                    if code not in (0, fine):
                        raise _refusal(code, kind, flags, body)
                    return whole, bodies
                bodies.append(body)

    def link(self, name: str) -> Link | None:
        """Look one link up."""
        body = bytes(_LINK.size) + attribute(3, name.encode() + b"\0")
        answer = self.ask(_GETLINK, body, fine=errno.ENODEV)
        return _link(answer[0]) if answer else None

    def doom(self, name: str) -> int:
        """Put a link of ours among those that go; give its index, 0 if there is none."""
        link = self.link(name)
        if not (link and link.ours):
            return 0
        body = _LINK.pack(0, link.number, 0, 0) + attribute(27, DOOMED.to_bytes(4, byteorder))
        self.ask(_NEWLINK, body, fine=errno.ENODEV)
        return link.number

    def links(self) -> dict[int, Link]:
        """List the links by index."""
        body = bytes(_LINK.size) + attribute(29, _NO_STATISTICS)
        return {link.number: link for link in map(_link, self.ask(_GETLINK, body, DUMP))}


class News(Channel):
    """What the kernel reports, as names of our links concerned and "" for news of the host."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, Link] = {}
        self._socket.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, _BACKLOG_BYTES)
        for group in _GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_GROUP, group)

    def watch(
        self,
        links: Callable[[], dict[int, Link]],
        changed: Callable[[frozenset[str]], None],
        stop: threading.Event,
    ) -> None:
        """Report until told to stop. What is lost to an overrun is reported as ""."""
        self._known = links()
        while not stop.is_set():
            names, lost = self._read()
            if lost:
                self._known = links()
                names.add("")
            if names:
                changed(frozenset(names))

    def _read(self) -> tuple[set[str], bool]:
        """Give what is reported until nothing more comes, and whether some of it was lost."""
        names, lost = set[str](), False
        self._socket.settimeout(_LISTEN_S)
        while True:
            try:
                for kind, _, _, body in _messages(self._socket.recv(_RECEIVE_BYTES)):
                    names.update(self._meaning(kind, body))
            except (TimeoutError, BlockingIOError):
                return names, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True  # told once: the kernel drops all that comes until this has been read
            self._socket.settimeout(0)

    def _meaning(self, kind: int, body: bytes) -> Iterator[str]:
        if kind in (_NEWLINK, _DELLINK) and _LINK.unpack_from(body)[0] == socket.AF_UNSPEC:
            yield from self._of_link(_link(body), gone=kind == _DELLINK)
        elif kind == _DELADDR:
            link = self._known.get(_ADDRESS.unpack_from(body)[-1])
            if link and link.ours and link.group != DOOMED:
                yield link.name
        elif kind in (_NEWROUTE, _DELROUTE):
            _, length, _, _, table, protocol, *_ = _ROUTE.unpack_from(body)
            lost = kind == _DELROUTE and protocol == PROTOCOL
            if lost or (table == MAIN_TABLE and length == 0):
                yield ""

    def _of_link(self, link: Link, gone: bool) -> Iterator[str]:
        was = self._known.pop(link.number, None)
        if not gone:
            self._known[link.number] = link
        if link.ours and link.group == DOOMED:
            return
        if link.ours or (was and was.ours):
            if gone or (was and _drifted(was, link)):
                yield was.name if was else link.name
        elif _matters(was, link, gone):
            yield ""


def _drifted(was: Link, link: Link) -> bool:
    """Tell drift from the steps in which a link is made: it gets its master and goes up."""
    return was.up and (
        not link.up
        or (was.name, was.mtu) != (link.name, link.mtu)
        or was.master not in (0, link.master)
    )


def _matters(was: Link | None, link: Link, gone: bool) -> bool:
    """Tell whether news of a foreign link may change the `Facts`."""
    if link.local:
        return False
    if gone or was is None:
        return gone or link.kind == "bridge"
    return (was.up, was.master, was.mtu) != (link.up, link.master, link.mtu)
