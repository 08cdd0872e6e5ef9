"""A netlink socket: requests, batches, dumps, and what the kernel reports."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator, Sequence

from driver.host.netlink import constants as nl
from driver.host.netlink import encoder
from driver.host.netlink.decoder import Link, attributes, messages, read_link, text

RECEIVE_BYTES = 1 << 16
_DUMP_ATTEMPTS = 10
AT_ONCE = 128  # messages in a call; even if all are refused, the answers fit the buffer

Request = tuple[int, int, bytes]  # kind, flags, and the message with room for its header


class Channel:
    """A netlink socket into the namespace of the thread that makes it. Any thread may ask."""

    def __init__(self, protocol: int = nl.NETLINK_ROUTE) -> None:
        """Open it, for rtnetlink unless another protocol is given."""
        self._lock = threading.Lock()
        self._number = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self.socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        for option in (nl.NETLINK_CAP_ACK, nl.NETLINK_EXT_ACK, nl.NETLINK_GET_STRICT_CHK):
            self.socket.setsockopt(nl.SOL_NETLINK, option, 1)
        self.socket.bind((0, 0))
        self.port: int = self.socket.getsockname()[0]  # the kernel names senders by it

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def ask(self, kind: int, request: bytes, flags: int = 0, fine: int = 0) -> list[bytes]:
        """Write a message's header, send it, and return the messages of the answer.

        Errors: OSError, the kernel's refusal, but for the errno that is `fine`.
        """
        for _ in range(_DUMP_ATTEMPTS):
            whole, answer = True, list[bytes]()
            with self._lock:
                first = self._send([(kind, flags, request)])
                for reply, state, _, body in self._replies(first):
                    whole = whole and not state & nl.NLM_F_DUMP_INTR
                    if reply not in (nl.NLMSG_ERROR, nl.NLMSG_DONE):
                        answer.append(body)
                    elif (code := -nl.NLMSGERR.unpack_from(body)[0]) not in (0, fine):
                        raise _refusal(code, reply, state, body)
            if whole:
                return answer
        raise OSError(errno.EAGAIN, "the list changed each time it was read")

    def dump(self, kind: int, request: bytes, fine: int = 0) -> list[bytes]:
        """Return the messages of a list; the request says what to leave out. Errors: as `ask`."""
        return self.ask(kind, request, nl.NLM_F_DUMP, fine)

    def batch(self, requests: Sequence[Request], end: bytes = b"") -> dict[int, OSError]:
        """Write the headers of messages and send them, many in one system call.

        `end`: a whole message that ends those of each call, and is never answered.
        Return the kernel's refusals by the index of the refused request.
        """
        refused: dict[int, OSError] = {}
        for start in range(0, len(requests), AT_ONCE):
            with self._lock:
                first = self._send(requests[start : start + AT_ONCE], end)
                for kind, flags, number, body in self._replies(first):
                    if code := -nl.NLMSGERR.unpack_from(body)[0]:
                        refused[start + number - first] = _refusal(code, kind, flags, body)
                    if end and number == first:  # all were refused, maybe with no other answer
                        break
        return refused

    def _send(self, requests: Sequence[Request], end: bytes = b"") -> int:
        """Send messages in one system call and return the first one's number.

        Only the last asks for an answer: the kernel reports a refusal without being asked.
        """
        first, last = self._number + 1, len(requests) - 1
        self._number += len(requests)
        asked, answered = nl.NLM_F_REQUEST, nl.NLM_F_REQUEST | nl.NLM_F_ACK
        size = nl.NLMSGHDR.size
        self.socket.send(
            b"".join(
                nl.NLMSGHDR.pack(
                    len(body), kind, flags | (answered if i == last else asked), first + i, 0
                )
                + body[size:]
                for i, (kind, flags, body) in enumerate(requests)
            )
            + end
        )
        return first

    def _replies(self, first: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield kind, flags, number and all of each reply, up to the last request's."""
        while True:
            for kind, flags, number, body in messages(self.socket.recv(RECEIVE_BYTES)):
                if first <= number <= self._number:
                    yield kind, flags, number, body
                if number == self._number and kind in (nl.NLMSG_ERROR, nl.NLMSG_DONE):
                    return

    def subscribe(self, *groups: int) -> None:
        """Receive what the kernel reports to these groups."""
        for group in groups:
            self.socket.setsockopt(nl.SOL_NETLINK, nl.NETLINK_ADD_MEMBERSHIP, group)

    def heard(self, wait_s: float = 0) -> Iterator[tuple[int, bytes]]:
        """Yield kind and all of each message that is reported, until nothing more comes.

        It waits for the first. The kind is NLMSG_OVERRUN where some were lost: the kernel drops
        all that follow until that has been read.
        """
        self.socket.settimeout(wait_s)
        while True:
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except (TimeoutError, BlockingIOError):
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield nl.NLMSG_OVERRUN, b""
            else:
                for kind, _, _, body in messages(data):
                    yield kind, body
            self.socket.settimeout(0)

    def link(self, name: str) -> Link | None:
        """Return a link by its name; None if there is none."""
        answer = self.ask(nl.RTM_GETLINK, encoder.named(name), fine=errno.ENODEV)
        return read_link(answer[0]) if answer else None

    def link_at(self, index: int) -> Link | None:
        """Return a link by its index; None if there is none, as for 0."""
        if not index:
            return None
        answer = self.ask(nl.RTM_GETLINK, encoder.numbered(index), fine=errno.ENODEV)
        return read_link(answer[0]) if answer else None

    def links(self, kind: str = "") -> dict[int, Link]:
        """List the links by index; with `kind` only those, and hardly slower for many others.

        The kernel leaves the others out, or lists all where it does not know the kind yet.
        """
        body = bytes(nl.IFINFOMSG.size) + encoder.u32(nl.IFLA_EXT_MASK, nl.RTEXT_FILTER_SKIP_STATS)
        if kind:
            body += encoder.nest(nl.IFLA_LINKINFO, encoder.string(nl.IFLA_INFO_KIND, kind))
        found = map(read_link, self.dump(nl.RTM_GETLINK, body))
        return {link.number: link for link in found if kind in ("", link.kind)}


def _refusal(code: int, kind: int, flags: int, body: bytes) -> OSError:
    """Return the kernel's refusal, with its own sentence if it sent one, else the errno's."""
    start = nl.NLMSGERR.size + (nl.NLMSGHDR.size if kind == nl.NLMSG_ERROR else 0)
    found = attributes(body, start) if flags & nl.NLM_F_ACK_TLVS else {}
    sentence = found.get(nl.NLMSGERR_ATTR_MSG)
    return OSError(code, os.strerror(code) if sentence is None else text(sentence))
