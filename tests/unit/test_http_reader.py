"""HTTP requests out of bytes, in whatever pieces they come."""

from __future__ import annotations

import json

import pytest

from driver.http_reader import BODY, HEADERS, LINE, Reader, Refusal, Request
from driver.wsgi import answer, refusal

CALL = b"POST /NetworkDriver.Join HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\n"
WHOLE = CALL + b"Content-Length: 5\r\n\r\nhello"
IN_CHUNKS = CALL + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED = IN_CHUNKS + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: 1\r\n\r\n"


def read(data: bytes, piece: int = 1 << 20) -> list[Request]:
    """Return the requests in some bytes that come in pieces."""
    reader, found = Reader(), []
    for start in range(0, len(data), piece):
        reader.feed(data[start : start + piece])
        while request := reader.take():
            found.append(request)
    return found


@pytest.mark.parametrize("data", [WHOLE, CHUNKED])
@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_a_request_is_the_same_in_any_pieces(data: bytes, piece: int) -> None:
    two = read(data + data, piece)
    assert [(r.method, r.target, r.body, r.keep) for r in two] == [
        ("POST", "/NetworkDriver.Join", b"hello", True)
    ] * 2
    assert two[0].headers["accept"] == "a/b"


def test_without_a_length_there_is_no_body() -> None:
    assert [r.body for r in read(CALL + b"\r\n" + WHOLE)] == [b"", b"hello"]
    assert [r.target for r in read(b"\r\nGET /status?x=1 HTTP/1.1\r\n\r\n")] == ["/status?x=1"]


@pytest.mark.parametrize(
    "ending", ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\nConnection: Close\n\n"]
)
def test_some_connections_end_after_the_answer(ending: str) -> None:
    assert [r.keep for r in read(ending.encode())] == [False]


def test_whether_a_request_has_begun() -> None:
    reader = Reader()
    assert not reader.begun
    reader.feed(WHOLE[:60])
    assert reader.take() is None
    assert reader.begun
    reader.feed(WHOLE[60:])
    assert reader.take() is not None
    assert not reader.begun


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"\x16\x03\x01\x02\x00\x01\n", 400, "is no request line of HTTP/1.1"),
        (b"GET / HTTP/2.0\r\n", 400, "'GET / HTTP/2.0' is no request line"),
        (b"get / HTTP/1.1\r\n", 400, "is no request line"),
        (b"x" * (LINE + 2), 414, "the request line has more bytes than are allowed, 8192"),
        (CALL + b"no header\r\n", 400, "'no header' is no header"),
        (CALL + b" folded: x\r\n", 400, "is no header"),
        (CALL + b"a: \x00\r\n", 400, "is no header"),
        (CALL + b"a: " + b"b" * LINE, 431, "the header has more bytes"),
        (CALL + (b"a: " + b"b" * 2000 + b"\r\n") * (HEADERS // 2000 + 1), 431, "the header has"),
        (CALL + b"Content-Length: -5\r\n\r\n", 400, "content-length '-5' is no number"),
        (CALL + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "comes twice"),
        (CALL + b"Content-Length: %d\r\n\r\n" % (BODY + 1), 413, "1048577 bytes or more; 1048576"),
        (CALL + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400, "is not chunked alone"),
        (CALL + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "alone"),
        (IN_CHUNKS + b"xyz\r\n", 400, "'xyz' is no size of a chunk"),
        (IN_CHUNKS + b"3\r\nhello\r\n", 400, "longer than the 3 bytes"),
        (IN_CHUNKS + b"fffffff\r\n", 413, "268435455 bytes or more"),
        (IN_CHUNKS + b"0" * 200, 400, "size of a chunk has more"),
    ],
)
@pytest.mark.parametrize("piece", [13, 1 << 20])
def test_what_cannot_be_answered_is_refused(
    data: bytes, status: int, words: str, piece: int
) -> None:
    with pytest.raises(Refusal) as caught:
        read(data, piece)
    assert caught.value.status == status
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_largest_body_is_taken() -> None:
    head = CALL + b"Content-Length: %d\r\n\r\n" % BODY
    assert [len(r.body) for r in read(head + b"x" * BODY, 1 << 16)] == [BODY]


def test_an_answer_is_what_the_application_says() -> None:
    (request,) = read(WHOLE)
    seen = {}

    def application(environ: dict[str, object], start: object) -> list[bytes]:
        seen.update(environ)
        start("201 Made", [("X-A", "b"), ("Content-Length", "99")])  # type: ignore[operator]
        return [environ["wsgi.input"].read(), b"!"]  # type: ignore[attr-defined]

    said = answer(application, request)
    assert said == b"HTTP/1.1 201 Made\r\nX-A: b\r\nContent-Length: 6\r\n\r\nhello!"
    assert (seen["PATH_INFO"], seen["HTTP_ACCEPT"]) == ("/NetworkDriver.Join", "a/b")


def test_an_application_that_fails_is_answered_for() -> None:
    (request,) = read(WHOLE)
    said = answer(lambda *_: ([b""][1:2] and []) or {}[0], request)  # type: ignore[index]
    assert said.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"the log of docker-flannel has more" in said


def test_a_refusal_has_dockers_shape_and_ends_the_connection() -> None:
    head, _, body = refusal(413, "too large").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in head
    assert json.loads(body) == {"Err": "too large", "Error": "too large"}
