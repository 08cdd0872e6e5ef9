"""Filters reports in the kernel, so that those that do not matter never wake this process.

A filter is a short BPF program that the kernel runs on each message.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from driver.host.netlink import constants as nl
from driver.host.netlink.encoder import BpfStep, bpf

# where in a message: its kind, who asked for it, an entry's link
_KIND, _SENDER, _DEVICE = 4, 12, 20
_TAKE, _DROP = (nl.BPF_RET, 0, 0, 0xFFFFFFFF), (nl.BPF_RET, 0, 0, 0)
_ENTRIES = (nl.RTM_NEWNEIGH, nl.RTM_DELNEIGH)
_SIGNED = (nl.RTM_NEWADDR, nl.RTM_DELADDR, nl.RTM_NEWROUTE, nl.RTM_DELROUTE)


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
        """Take no entries during the block: the kernel filters reports while it makes changes."""
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
    """Take only removed addresses, and routes removed from a table."""
    of_table = [(nl.BPF_LD_B, 0, 0, nl.RTMSG_TABLE), *_choice([table], _TAKE, _DROP)]
    kind = (nl.BPF_LD_H, 0, 0, _KIND)
    addresses = _branch([nl.RTM_DELADDR], [_TAKE])
    _attach(on, [kind, *addresses, *_branch([nl.RTM_DELROUTE], of_table), _DROP])


def _attach(on: socket.socket, program: Iterable[BpfStep]) -> None:
    steps = list(program)
    code = ctypes.create_string_buffer(bpf(steps))
    found = struct.pack("@HP", len(steps), ctypes.addressof(code))
    on.setsockopt(socket.SOL_SOCKET, nl.SO_ATTACH_FILTER, found)


def _program(senders: Iterable[int], links: Iterable[int]) -> Iterator[BpfStep]:
    """Yield the steps: look at the kind, then at the sender or the link."""
    by_link = [(nl.BPF_LD_W, 0, 0, _DEVICE), *_choice(map(socket.htonl, links), _TAKE, _DROP)]
    by_sender = [(nl.BPF_LD_W, 0, 0, _SENDER), *_choice(map(socket.htonl, senders), _DROP, _TAKE)]
    yield nl.BPF_LD_H, 0, 0, _KIND
    yield from _branch(_ENTRIES, by_link)
    yield from _branch(_SIGNED, by_sender)
    yield _TAKE


def _branch(kinds: Iterable[int], steps: list[BpfStep]) -> Iterator[BpfStep]:
    """Yield these steps, which end in a return, behind a test for these kinds of messages."""
    left = list(kinds)
    while left:
        kind = left.pop()
        yield nl.BPF_JEQ, len(left), 0 if left else len(steps), socket.htons(kind)
    yield from steps


def _choice(values: Iterable[int], equal: BpfStep, other: BpfStep) -> Iterator[BpfStep]:
    for value in values:
        yield nl.BPF_JEQ, 0, 1, value
        yield equal
    yield other
