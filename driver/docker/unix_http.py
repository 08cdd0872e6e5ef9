"""HTTP over a unix socket, as Docker and the plugin speak it."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

LIMIT_S = 10.0


class UnixConnection(http.client.HTTPConnection):
    """A connection; each step of a request may take `limit_s` seconds."""

    def __init__(self, path: Path, limit_s: float) -> None:
        super().__init__("localhost", timeout=limit_s)
        self._path = path

    def connect(self) -> None:
        """Open the connection."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request(
    path: Path, method: str, what: str, body: object = None, limit_s: float = LIMIT_S
) -> tuple[int, Any]:
    """Send a request, with `body` as JSON; return the status and the JSON of the answer.

    An answer without content counts as null.
    Errors: OSError if nobody answers, HTTPException if it is no HTTP, ValueError if it is no JSON.
    """
    connection = UnixConnection(path, limit_s)
    try:
        connection.request(method, what, None if body is None else json.dumps(body))
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read() or b"null")
    except RecursionError as error:
        raise ValueError(str(error)) from error
    finally:
        connection.close()
