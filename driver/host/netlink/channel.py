"""Talks rtnetlink: requests, batches, replies, dumps, decoding only what the plugin needs.

pyroute2 decodes all attributes, at 0.3 ms for each link of a dump; this takes some 20 µs.
Imports only `model`. Source: linux/{netlink,rtnetlink,if_link}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from sys import byteorder
from typing import NamedTuple

from driver.model.records import (
    ALIAS_PREFIX,
    BRIDGE_PREFIX,
    FLANNEL_PREFIX,
    HOST_END_PREFIX,
)

PROTOCOL = 91  # of our routes; iproute2's rt_protos and the kernel assign it to nobody
METRIC = 91000  # of our routes: another program's route to the same prefix goes first
GROUP = 26220  # of our links; the kernel takes it when it makes a link, an alias only later
DOOMED = GROUP + 1  # of those that are being removed: together, in one grace period
MAIN_TABLE = 254
DUMP = 0x300
NETFILTER = 12  # another netlink protocol than rtnetlink
UNICAST, ON_LINK = 1, 253  # a type of routes, and a scope

NEWLINK, DELLINK, GETLINK, NEWADDR, DELADDR, GETADDR = 16, 17, 18, 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE, NEWNEIGH, DELNEIGH, GETNEIGH = 24, 25, 26, 28, 29, 30
_ERROR, _DONE = 2, 3
_ASK, _INTERRUPTED, _EXPLAINED = 0x5, 0x10, 0x200
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_LOWER_UP = 1 << 16
_NETNSID = 37  # attribute of a link
_NO_STATISTICS = (8).to_bytes(4, byteorder)
RECEIVE_BYTES = 1 << 16
_DUMP_ATTEMPTS = 10
AT_ONCE = 128  # messages in a call: were all refused, the answers would fit the socket's buffer

_PREFIXES = {"bridge": BRIDGE_PREFIX, "veth": HOST_END_PREFIX, "vxlan": FLANNEL_PREFIX}

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
LINK = struct.Struct("=16xBxxxiII")  # header, family, index, flags, change
ADDRESS = struct.Struct("=16x4Bi")  # header, family, prefix length, flags, scope, index
ROUTE = struct.Struct("=16x8BI")  # -, family, dst length, -, -, table, protocol, scope, type, flags
NEIGHBOUR = struct.Struct("=16xB3xiHBB")  # header, family, index, state, flags, type
_CODE = struct.Struct("=16xi")  # header, negative errno; in an error the refused header follows


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
        """Tell whether it has our name and our mark: the group, or the alias."""
        prefix = _PREFIXES.get(self.kind)
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


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Decode the attributes from an offset on, by kind."""
    found = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")


def integer(payload: bytes) -> int:
    """Decode a number of the machine's byte order; 0 for none."""
    return int.from_bytes(payload, byteorder)


def read_link(body: bytes) -> Link:
    """Decode a link."""
    _, number, flags, _ = LINK.unpack_from(body)
    found = attributes(body, LINK.size)
    info = attributes(found.get(18, b""))
    port = attributes(info.get(5, b"")) if info.get(4) == b"bridge\0" else {}
    return Link(
        number=number,
        name=_text(found[3]),
        kind=_text(info.get(1, b"")),
        up=bool(flags & 1),
        carrier=bool(flags & _LOWER_UP),
        master=integer(found.get(10, b"")),
        mtu=integer(found[4]),
        mac=found.get(1, b"").hex(":"),
        alias=_text(found.get(20, b"")),
        group=integer(found.get(27, b"")),
        hairpin=port.get(4) == b"\1",
        detail=info.get(2, b""),
        peer=integer(found.get(5, b"")),
        elsewhere=integer(found[_NETNSID]) if _NETNSID in found else None,
    )


def bridge_port(name: str, owner: str, hairpin: bool) -> bytes:
    """Encode a link's owner, and its hairpin mode as a bridge's port.

    It comes with a container's first port and goes with the last; pyroute2 takes 0.2 ms for it.
    """
    port = attribute(4, b"bridge\0") + attribute(5, attribute(4, bytes([hairpin])))
    told = attribute(20, (ALIAS_PREFIX + owner).encode()) + attribute(18, port)
    return bytes(LINK.size) + attribute(3, name.encode() + b"\0") + told


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Give kind, flags, number and all of each message."""
    offset = 0
    while offset < len(data):
        length, kind, flags, number, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, number, data[offset : offset + length]
        offset += (length + 3) & ~3


def _refusal(code: int, kind: int, flags: int, body: bytes) -> OSError:
    """Give the kernel's reason: its sentence when it sends one, else the errno's."""
    start = _CODE.size + (_HEADER.size if kind == _ERROR else 0)
    told = attributes(body, start) if flags & _EXPLAINED else {}
    return OSError(code, _text(told[1]) if 1 in told else os.strerror(code))


Request = tuple[int, int, bytes]  # kind, flags, and the message with room for its header


class Channel:
    """A netlink socket into the namespace of the thread that makes it. Any thread may ask."""

    def __init__(self, protocol: int = 0) -> None:
        """Open it, for rtnetlink unless another netlink protocol is named."""
        self._lock = threading.Lock()
        self._number = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self.socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            self.socket.setsockopt(_SOL_NETLINK, option, 1)
        self.socket.bind((0, 0))
        self.port: int = self.socket.getsockname()[0]  # by which the kernel names who asked

    def close(self) -> None:
        """Give the socket back."""
        self.socket.close()

    def ask(self, kind: int, request: bytes, flags: int = 0, fine: int = 0) -> list[bytes]:
        """Send a message, of which it writes the header, and give the messages of the answer.

        Errors: OSError, the kernel's refusal, but for the errno that is `fine`.
        """
        for _ in range(_DUMP_ATTEMPTS):
            whole, answer = True, list[bytes]()
            with self._lock:
                first = self._send([(kind, flags, request)])
                for reply, state, _, body in self._replies(first):
                    whole = whole and not state & _INTERRUPTED
                    if reply not in (_ERROR, _DONE):
                        answer.append(body)
                    elif (code := -_CODE.unpack_from(body)[0]) not in (0, fine):
                        raise _refusal(code, reply, state, body)
            if whole:
                return answer
        raise OSError(errno.EAGAIN, "the list changed each time it was read")

    def tell(self, requests: Sequence[Request], end: bytes = b"") -> dict[int, OSError]:
        """Send messages, of which it writes the headers, many in one call.

        `end`: a whole message that is never answered, and ends what those of one call begin.
        Gives the kernel's refusals by the place of what it refused.
        """
        refused: dict[int, OSError] = {}
        for start in range(0, len(requests), AT_ONCE):
            with self._lock:
                first = self._send(requests[start : start + AT_ONCE], end)
                for kind, flags, number, body in self._replies(first):
                    if code := -_CODE.unpack_from(body)[0]:
                        refused[start + number - first] = _refusal(code, kind, flags, body)
                    if end and number == first:  # all were refused, maybe with no other answer
                        break
        return refused

    def _send(self, requests: Sequence[Request], end: bytes = b"") -> int:
        """Send messages in one call and give the first one's number. The last has to be answered.

        The others are not: the kernel tells of a refusal without being asked.
        """
        first, last = self._number + 1, len(requests) - 1
        self._number += len(requests)
        self.socket.send(
            b"".join(
                _HEADER.pack(len(body), kind, flags | (_ASK if i == last else 1), first + i, 0)
                + body[_HEADER.size :]
                for i, (kind, flags, body) in enumerate(requests)
            )
            + end
        )
        return first

    def _replies(self, first: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Give kind, flags, number and all of each message of the answer to the last request."""
        while True:
            for kind, flags, number, body in messages(self.socket.recv(RECEIVE_BYTES)):
                if first <= number <= self._number:
                    yield kind, flags, number, body
                if number == self._number and kind in (_ERROR, _DONE):
                    return

    def link(self, name: str) -> Link | None:
        """Look one link up."""
        body = bytes(LINK.size) + attribute(3, name.encode() + b"\0")
        answer = self.ask(GETLINK, body, fine=errno.ENODEV)
        return read_link(answer[0]) if answer else None

    def link_at(self, number: int) -> Link | None:
        """Look one link up by its index."""
        answer = self.ask(GETLINK, LINK.pack(0, number, 0, 0), fine=errno.ENODEV) if number else []
        return read_link(answer[0]) if answer else None

    def doom(self, name: str) -> int:
        """Put a link of ours among those that go; give its index, 0 if there is none."""
        link = self.link(name)
        if not (link and link.ours):
            return 0
        body = LINK.pack(0, link.number, 0, 0) + attribute(27, DOOMED.to_bytes(4, byteorder))
        self.ask(NEWLINK, body, fine=errno.ENODEV)
        return link.number

    def links(self) -> dict[int, Link]:
        """List the links by index."""
        body = bytes(LINK.size) + attribute(29, _NO_STATISTICS)
        return {link.number: link for link in map(read_link, self.ask(GETLINK, body, DUMP))}
