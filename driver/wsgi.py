"""One request through a WSGI application: `Request` in, the bytes of the answer out.

Imports `http_reader`.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

from driver.http_reader import Request

log = logging.getLogger(__name__)


def answer(application: WSGIApplication, request: Request) -> bytes:
    """Return what an application answers, whatever happens in it."""
    head: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start(
        status: str, headers: list[tuple[str, str]], _: object = None, /
    ) -> Callable[[bytes], object]:
        head[:] = [(status, headers)]
        return written.append

    try:
        parts = application(_environ(request), start)
        try:
            body = b"".join([*written, *parts])
        finally:
            getattr(parts, "close", lambda: None)()
        status, headers = head[0]
    except Exception as error:  # a call must be answered
        log.error("%s %s failed", request.method, request.target[:80], exc_info=error)
        return refusal(500, "internal error; the log of docker-flannel has more")
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{k}: {v}" for k, v in headers if k.lower() not in ("content-length", "connection")]
    return _bytes(lines, body, keep=request.keep, shown=request.method != "HEAD")


def refusal(status: int, sentence: str) -> bytes:
    """Return the answer to a request that no application is asked about; the connection ends."""
    body = json.dumps({"Err": sentence, "Error": sentence}).encode()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: application/json"]
    return _bytes(lines, body, keep=False)


def _bytes(lines: list[str], body: bytes, *, keep: bool, shown: bool = True) -> bytes:
    lines = [*lines, f"Content-Length: {len(body)}"]
    if not keep:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body * shown


def _environ(request: Request) -> dict[str, Any]:
    path, _, query = request.target.partition("?")
    headers = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in request.headers.items()}
    return {
        **headers,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "SERVER_NAME": "flannel",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
