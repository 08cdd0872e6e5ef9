"""Clients of the socket that send half a request, a slow one, or nonsense: Docker's go on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.bed import Host, unixhttp
from tests.bed.host import PLUGIN_SOCKET

CALL_S = 2.0  # what Docker is promised
HEAD = b"POST /IpamDriver.ReleaseAddress HTTP/1.1\r\nHost: plugin\r\nContent-Type: a/b\r\n"
LENGTH = HEAD + b"Content-Length: 1000\r\n\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = json.dumps({"PoolID": "", "Address": ""}).encode()
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def alone(bed: object) -> Host:
    """Return a host with the plugin and no dockerd: the calls are the tests' own."""
    host: Host = bed.host("h1")  # type: ignore[attr-defined]
    host.start_plugin()
    return host


@pytest.fixture
def connect(alone: Host) -> Iterator[Connect]:
    """Return what opens connections, which are closed in the end."""
    made: list[socket.socket] = []

    def one() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        sock.connect(str(alone.path(PLUGIN_SOCKET)))
        made.append(sock)
        return sock

    yield one
    for sock in made:
        sock.close()


@contextmanager
def docker(path: Path) -> Iterator[Callable[[], None]]:
    """Call like dockerd, which keeps its connection; each answer has to come in time."""
    with closing(unixhttp.Connection(path, CALL_S)) as kept:

        def call() -> None:
            began = time.monotonic()
            kept.request("POST", "/IpamDriver.ReleaseAddress", BODY, {"Accept": unixhttp.ACCEPT})
            answer = kept.getresponse()
            assert (answer.status, answer.read()) == (200, b"{}\n")
            assert time.monotonic() - began < CALL_S

        call()
        first = kept.sock
        yield call
        call()
        assert kept.sock is first, "the connection was cut"


@pytest.mark.parametrize("many", [8, 64, 300])
@pytest.mark.parametrize("half", [b"", b"POS", HEAD, LENGTH + b"{", CHUNKS + b"5\r\nab"])
def test_half_requests(alone: Host, connect: Connect, many: int, half: bytes) -> None:
    with docker(alone.path(PLUGIN_SOCKET)) as call:
        for _ in range(many):
            connect().sendall(half)
        for _ in range(20):
            call()
        with docker(alone.path(PLUGIN_SOCKET)) as new:
            new()


def test_what_comes_a_byte_at_a_time(alone: Host, connect: Connect) -> None:
    slow = [connect() for _ in range(64)]
    with docker(alone.path(PLUGIN_SOCKET)) as call:
        for number in range(len(WHOLE)):
            for sock in slow:
                sock.sendall(WHOLE[number : number + 1])
            call()
    assert {reply(sock)[0] for sock in slow} == {200}, "slow, but in time"


def test_who_does_not_read_the_answers(alone: Host, connect: Connect) -> None:
    deaf = [connect() for _ in range(16)]
    for sock in deaf:
        sock.setblocking(False)
    with docker(alone.path(PLUGIN_SOCKET)) as call:
        for _ in range(200):
            for sock in deaf:
                fill(sock, WHOLE * 10)
            call()


def fill(sock: socket.socket, data: bytes) -> None:
    """Send what goes without waiting."""
    try:
        sock.send(data)
    except BlockingIOError:
        return


def test_a_request_must_become_whole_in_time(connect: Connect) -> None:
    late = connect()
    late.sendall(LENGTH + b"{")
    idle = connect()
    idle.sendall(WHOLE)
    assert reply(idle)[0] == 200
    assert ended(late), "half a request was waited for without end"
    idle.sendall(WHOLE)
    assert reply(idle)[0] == 200, "a connection that is silent between requests stays"


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400, "Start line is invalid"),
        (WHOLE + b"garbage\r\n\r\n", 200, "{}"),
        (HEAD + b"Content-Length: 9999999\r\n\r\n", 413, "exceeds max_body of 1048576"),
        (CHUNKS + b"zz\r\n\r\n", 400, "Invalid chunk size"),
        (CHUNKS + b"2\r\nabc\r\n", 400, "Chunk not properly terminated"),
        (HEAD + b"X: " + b"y" * 20000, 431, "exceeds max_header of 16384"),
        (b"GET /" + b"y" * 20000, 431, "exceeds max_header of 16384"),
    ],
)
def test_what_is_no_request_is_told_so(
    alone: Host, connect: Connect, sent: bytes, status: int, words: str
) -> None:
    with docker(alone.path(PLUGIN_SOCKET)):
        sock = connect()
        sock.sendall(sent)
        told = reply(sock)
        assert told[0] == status
        assert words in told[1]
        if sent.startswith(WHOLE):
            assert reply(sock)[0] == 400, "garbage behind a request"
        assert ended(sock)


def reply(sock: socket.socket) -> tuple[int, str]:
    """Read one answer off a connection, byte by byte: its status and its text."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1)
    lines = data.lower().split(b"\r\n")
    length = next(int(x.split(b":")[1]) for x in lines if x.startswith(b"content-length:"))
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return int(data.split()[1]), body.decode()


def ended(sock: socket.socket) -> bool:
    """Whether the connection is closed; the kernel says so another way if something is unread."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
