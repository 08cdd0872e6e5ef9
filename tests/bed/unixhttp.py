"""HTTP over a Unix socket, as dockerd speaks to a plugin and a client to dockerd."""

import http.client
import socket
from pathlib import Path

ACCEPT = "application/vnd.docker.plugins.v1.2+json"


class Connection(http.client.HTTPConnection):
    """A connection that may be kept; each answer has to come within `limit_s` seconds."""

    def __init__(self, path: Path, limit_s: float) -> None:
        super().__init__("plugin", timeout=limit_s)
        self._path = str(path)

    def connect(self) -> None:
        """Open the connection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def request(
    path: Path, method: str, target: str, body: bytes | None = None, limit_s: float = 30
) -> tuple[int, bytes]:
    """Send one request over the socket at `path`; return status and body of the answer.

    Raises OSError when nobody listens or the answer takes over `limit_s` seconds, and
    HTTPException when it is not HTTP.
    """
    connection = Connection(path, limit_s)
    try:
        connection.request(method, target, body, {"Accept": ACCEPT})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def answers(path: Path, method: str, target: str) -> bool:
    """Whether somebody listens at `path` and answers this request with 200."""
    try:
        return request(path, method, target, limit_s=5)[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
