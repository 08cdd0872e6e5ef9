"""HTTP requests out of the bytes of one connection, in whatever pieces they come. Pure.

It never waits: a connection that sends half a request costs no more than that half. What is too
large, or no HTTP, is refused with a status and a sentence, which end the connection.
Imports nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass

LINE = 8192  # bytes of the request line, and of one header
HEADERS = 16384  # bytes of all headers
BODY = 1 << 20  # bytes; a container with thousands of ports needs some hundred thousand
CHUNK_LINE = 128  # bytes of the line before a chunk
BAD, TOO_LARGE, URI_TOO_LONG, HEADERS_TOO_LARGE = 400, 413, 414, 431
SHOWN = 60  # bytes of what is refused

REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (/[\x21-\x7e]*) HTTP/1\.([01])")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?")
LENGTH = re.compile(r"[0-9]{1,18}")


class Refusal(Exception):
    """A request that cannot be answered; its text is the sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. `headers` by lower-case name; `keep`: the connection stays afterwards."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    keep: bool


class Reader:
    """The requests of one connection."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._looked = 0  # bytes in which there is no end of a line
        self._steps = self._request()
        self.begun = False  # whether a part of a request is there

    def feed(self, data: bytes) -> None:
        """Take what the connection has brought."""
        self._bytes += data

    def take(self) -> Request | None:
        """Return the next request, None as long as it is not whole.

        Errors: Refusal; the reader is then of no further use.
        """
        self.begun |= bool(self._bytes)
        try:
            next(self._steps)
        except StopIteration as done:
            self._steps, self.begun = self._request(), bool(self._bytes)
            request: Request = done.value
            return request
        return None

    def _request(self) -> Generator[None, None, Request]:
        first = yield from self._line(LINE, URI_TOO_LONG, "request line")
        if not first:  # RFC 9112 2.2: an empty line in front is to be ignored
            first = yield from self._line(LINE, URI_TOO_LONG, "request line")
        parts = REQUEST_LINE.fullmatch(first)
        if parts is None:
            raise Refusal(BAD, f"{_shown(first)} is no request line of HTTP/1.1")
        headers = yield from self._headers()
        body = yield from self._body(headers)
        keep = parts[3] == b"1" and headers.get("connection", "").lower() != "close"
        return Request(parts[1].decode(), parts[2].decode(), headers, body, keep)

    def _headers(self) -> Generator[None, None, dict[str, str]]:
        found: dict[str, str] = {}
        left = HEADERS
        while line := (yield from self._line(min(LINE, left), HEADERS_TOO_LARGE, "header")):
            parts = HEADER.fullmatch(line)
            if parts is None:
                raise Refusal(BAD, f"{_shown(line)} is no header of HTTP/1.1")
            name, value = parts[1].decode().lower(), parts[2].decode("latin-1")
            if name in found and name in ("content-length", "transfer-encoding"):
                raise Refusal(BAD, f"the header {name} comes twice; once is allowed")
            found[name] = f"{found[name]}, {value}" if name in found else value
            left = max(0, left - len(line))
        return found

    def _body(self, headers: dict[str, str]) -> Generator[None, None, bytes]:
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise Refusal(
                    BAD,
                    f"transfer-encoding {coding[:SHOWN]!r} is not chunked alone, without a "
                    "content-length",
                )
            return (yield from self._chunks())
        if length is None:
            return b""
        if not LENGTH.fullmatch(length):
            raise Refusal(BAD, f"content-length {length[:SHOWN]!r} is no number of bytes")
        if int(length) > BODY:
            raise _too_large(int(length))
        return (yield from self._exactly(int(length)))

    def _chunks(self) -> Generator[None, None, bytes]:
        body = bytearray()
        while True:
            line = yield from self._line(CHUNK_LINE, BAD, "size of a chunk")
            parts = CHUNK.fullmatch(line)
            if parts is None:
                raise Refusal(BAD, f"{_shown(line)} is no size of a chunk in hexadecimal digits")
            size = int(parts[1], 16)
            if not size:
                yield from self._headers()  # trailers, which nobody needs
                return bytes(body)
            if len(body) + size > BODY:
                raise _too_large(len(body) + size)
            body += yield from self._exactly(size)
            if (yield from self._exactly(2)) != b"\r\n":
                raise Refusal(BAD, f"a chunk is longer than the {size} bytes it said")

    def _line(self, limit: int, status: int, what: str) -> Generator[None, None, bytes]:
        """Take a line off, without its end."""
        while (end := self._bytes.find(b"\n", self._looked)) < 0:
            self._looked = len(self._bytes)
            if self._looked > limit:
                break
            yield
        self._looked = 0
        if not 0 <= end <= limit + 1:
            raise Refusal(status, f"the {what} has more bytes than are allowed, {limit}")
        line = bytes(self._bytes[:end]).removesuffix(b"\r")
        del self._bytes[: end + 1]
        return line

    def _exactly(self, size: int) -> Generator[None, None, bytes]:
        while len(self._bytes) < size:
            yield
        taken = bytes(self._bytes[:size])
        del self._bytes[:size]
        return taken


def _too_large(size: int) -> Refusal:
    return Refusal(TOO_LARGE, f"the request's body has {size} bytes or more; {BODY} are allowed")


def _shown(line: bytes) -> str:
    """Quote the beginning of a line."""
    return repr(line[:SHOWN].decode("latin-1")) + "…" * (len(line) > SHOWN)
