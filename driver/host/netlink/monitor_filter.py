"""The kernel's filter before the news: what is of no use never wakes this process.

A program of few steps, which the kernel runs on each message. Imports only `events`.
Source: linux/{filter,netlink,neighbour}.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from driver.host.netlink import channel

_ATTACH = 26
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _IF_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_KIND, _SENDER, _DEVICE = (
    4,
    12,
    20,
)  # where in a message: its kind, who asked for it, an entry's link
_ROUTES_TABLE = 20
_TAKE, _DROP = (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)
_ENTRIES = (channel.NEWNEIGH, channel.DELNEIGH)
_SIGNED = (channel.NEWADDR, channel.DELADDR, channel.NEWROUTE, channel.DELROUTE)
_Step = tuple[int, int, int, int]  # code, steps to skip if true and if not, value


class Filter:
    """Takes entries of chosen links only, and no addresses and routes by ignored senders."""

    def __init__(self, on: socket.socket) -> None:
        self._socket = on
        self._lock = threading.Lock()
        self._senders, self._links = set[int](), frozenset[int]()
        self._hushed = False
        self._attach()

    def ignore(self, sender: int) -> None:
        """Drop the addresses and routes that a socket's owner asks for, by its port."""
        with self._lock:
            self._senders.add(sender)
            self._attach()

    def choose(self, links: Iterable[int]) -> None:
        """Take the entries of these links, by their indexes."""
        chosen = frozenset(links)
        with self._lock:
            if chosen != self._links:
                self._links = chosen
                self._attach()

    @contextmanager
    def hush(self) -> Iterator[None]:
        """Take no entries during the block; the kernel files its messages as it makes changes."""
        self._set_hushed(hushed=True)
        try:
            yield
        finally:
            self._set_hushed(hushed=False)

    def _set_hushed(self, *, hushed: bool) -> None:
        with self._lock:
            self._hushed = hushed
            self._attach()

    def _attach(self) -> None:
        _attach(self._socket, _program(self._senders, () if self._hushed else self._links))


def take_losses(on: socket.socket, table: int) -> None:
    """Take only addresses that go, and routes that go out of a table."""
    of_table = [(_LOAD_BYTE, 0, 0, _ROUTES_TABLE), *_choice([table], _TAKE, _DROP)]
    kind = (_LOAD_HALF, 0, 0, _KIND)
    addresses = _branch([channel.DELADDR], [_TAKE])
    _attach(on, [kind, *addresses, *_branch([channel.DELROUTE], of_table), _DROP])


def _attach(on: socket.socket, program: Iterable[_Step]) -> None:
    steps = list(program)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *s) for s in steps))
    found = struct.pack("@HP", len(steps), ctypes.addressof(code))
    on.setsockopt(socket.SOL_SOCKET, _ATTACH, found)


def _program(senders: Iterable[int], links: Iterable[int]) -> Iterator[_Step]:
    """Say the steps: of which kind is it, then who sent it or of which link it is."""
    by_link = [(_LOAD_WORD, 0, 0, _DEVICE), *_choice(map(socket.htonl, links), _TAKE, _DROP)]
    by_sender = [(_LOAD_WORD, 0, 0, _SENDER), *_choice(map(socket.htonl, senders), _DROP, _TAKE)]
    yield _LOAD_HALF, 0, 0, _KIND
    yield from _branch(_ENTRIES, by_link)
    yield from _branch(_SIGNED, by_sender)
    yield _TAKE


def _branch(kinds: Iterable[int], steps: list[_Step]) -> Iterator[_Step]:
    """Go these steps, which end in a return, with messages of these kinds; pass them else."""
    left = list(kinds)
    while left:
        kind = left.pop()
        yield _IF_EQUAL, len(left), 0 if left else len(steps), socket.htons(kind)
    yield from steps


def _choice(values: Iterable[int], equal: _Step, other: _Step) -> Iterator[_Step]:
    for value in values:
        yield _IF_EQUAL, 0, 1, value
        yield equal
    yield other
