"""Holds host ports by sockets, so that no other program can take them.

The sockets never serve: packets are translated before they reach one. A filter drops those that
are not, or clients would connect to a socket that nobody reads.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import resource
import socket
import struct
import time
from contextlib import suppress
from typing import ClassVar

from driver.errors import BadRequest, Conflict, FlannelError, HostError
from driver.model.identity import Key
from driver.model.objects import HostObject, Plan, PortSocket

SO_ATTACH_FILTER, SO_ATTACH_BPF = 26, 50  # not in Python's socket module
# the filter that drops all: "return 0" in classic BPF, and in eBPF "r0 = 0; exit"
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
FILTER = struct.pack("HP", 1, ctypes.addressof(_DROP_ALL))
_SHARED = ctypes.create_string_buffer(struct.pack("BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
_NO_LICENCE = ctypes.create_string_buffer(b"")
_PROGRAM = struct.pack("IIPP", 1, 2, ctypes.addressof(_SHARED), ctypes.addressof(_NO_LICENCE))
_LOAD = 5  # BPF_PROG_LOAD; the kind above is BPF_PROG_TYPE_SOCKET_FILTER, of two instructions
BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine)  # the number of the system call
TYPES = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
LINGER_S, RETRY_S = 0.5, 0.005
ROOM = 1 << 14  # sockets; 128 KB of the kernel's memory
SPARE = 64  # files for all else: without any, not even a call to end a container is heard
NO_PROTOCOL = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


class PortSockets:
    """The held ports of this process, each in the namespace of the thread that applied it."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (PortSocket,)

    def __init__(self) -> None:
        _make_room()
        self._dropped: dict[tuple[str, int], float] = {}
        # None instead of a socket: the kernel has no SCTP, so no program can want the port
        self._held: dict[Key, tuple[PortSocket, socket.socket | None]] = {}

    def observe(self) -> frozenset[HostObject]:
        """List the held ports."""
        return frozenset(hold for hold, _ in list(self._held.values()))

    def apply(self, plan: Plan) -> None:
        """Close and open sockets; one failure does not stop the rest.

        Errors: an ExceptionGroup of Conflict (taken), BadRequest (no address of this host) and
        HostError.
        """
        errors: list[FlannelError] = []
        for item in plan.remove:
            self._drop(item.key)
        for old, new in plan.change:  # only the owner can differ: the socket stays
            if isinstance(new, PortSocket) and old.key in self._held:
                self._held[new.key] = (new, self._held[old.key][1])
        for item in [*(new for _, new in plan.change), *plan.add]:
            try:
                self._take(item)
            except FlannelError as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("ports", errors)

    def close(self) -> None:
        """Release all ports."""
        for key in list(self._held):
            self._drop(key)

    def _take(self, item: HostObject) -> None:
        key = item.key
        held, _ = self._held.get(key, (None, None))
        if not isinstance(item, PortSocket) or item == held:
            return
        if held is not None:  # without SCTP in the kernel, no bind would fail
            raise _taken(held)
        ours_until = self._dropped.pop((item.proto, item.port), 0.0)
        self._held[key] = (item, _hold_again(item, ours_until + LINGER_S))

    def _drop(self, key: Key) -> None:
        hold, sock = self._held.pop(key, (None, None))
        if hold is not None and sock is not None:
            sock.close()
            self._dropped[hold.proto, hold.port] = time.monotonic()


def _make_room() -> None:
    """Raise the limit of open files as far as allowed, and make the kernel's table of them large.

    systemd lets a program open 1,024 files until it asks for more. A full table doubles, which in a
    process with threads waits for a grace period, some 10 ms.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # fs.nr_open may have become lower than that: then there is as much room as there is
    with suppress(OSError, ValueError), socket.socket() as sock:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        os.close(fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, min(ROOM, most) - 1))


def _hold_again(hold: PortSocket, until: float) -> socket.socket | None:
    """Take a port; retry until a time while it is taken.

    A program that another thread starts has a copy of every socket for the moment before it runs,
    so a port that was ours just now may seem to be somebody else's.
    """
    while True:
        try:
            return _hold(hold)
        except Conflict:
            if time.monotonic() > until:
                raise
            time.sleep(RETRY_S)


def _hold(hold: PortSocket) -> socket.socket | None:
    """Open the socket that keeps a port."""
    kind, proto = TYPES[hold.proto]
    try:
        sock = socket.socket(socket.AF_INET, kind, proto)
    except OSError as error:
        if hold.proto == "sctp" and error.errno in NO_PROTOCOL:
            return None
        raise _refused(hold, error) from error
    try:
        if sock.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE:
            raise OSError(errno.EMFILE, "")
        _silence(sock)
        _bind(sock, hold)
    except OSError as error:
        sock.close()
        raise _refused(hold, error) from error
    return sock


def _silence(sock: socket.socket) -> None:
    if (shared := _shared_filter()) is not None:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, shared)
    else:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, FILTER)


@functools.cache
def _shared_filter() -> int | None:
    """Load the filter that all sockets share; None where the kernel does not let us.

    A filter of its own would cost each socket 4 KB of the kernel's memory and 10 µs.
    """
    if BPF is None:
        return None
    shared: int = ctypes.CDLL(None).syscall(BPF, _LOAD, _PROGRAM, len(_PROGRAM))
    return shared if shared >= 0 else None


def _bind(sock: socket.socket, hold: PortSocket) -> None:
    """Bind the socket so that nobody else can.

    SO_REUSEADDR, because connections in TIME_WAIT must not prevent it; with that option only a
    socket that listens keeps others out. UDP has no TIME_WAIT, and with it keeps nobody out.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the kernel makes it its minimum
    if hold.proto != "udp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((str(hold.ip), hold.port))
    if hold.proto != "udp":
        sock.listen(0)


def _refused(hold: PortSocket, error: OSError) -> FlannelError:
    """Return what went wrong, in Docker's words where it has some."""
    if error.errno == errno.EADDRINUSE:
        return _taken(hold)
    if error.errno == errno.EADDRNOTAVAIL:
        return BadRequest(
            f"host address {hold.ip} is not an address of this host; `ip -4 address` lists them"
        )
    reason = os.strerror(error.errno or 0)
    return HostError(f"host port {hold.ip}:{hold.port}/{hold.proto} cannot be held: {reason}")


def _taken(hold: PortSocket) -> Conflict:
    sentence = f"Bind for {hold.ip}:{hold.port} failed: port is already allocated"
    return Conflict(sentence, (hold.proto, hold.ip, hold.port))
