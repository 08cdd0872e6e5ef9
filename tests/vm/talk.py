"""One JSON object a line over a Unix socket: how QEMU and its guest agent talk."""

import json
import socket
import time
from pathlib import Path
from typing import Any


class TalkError(AssertionError):
    """QEMU or the guest agent refused a command, or did not answer in time."""


class Talk:
    """A connection to QEMU's monitor or to the guest agent."""

    def __init__(self, path: Path) -> None:
        """Connect; raises OSError while nobody listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rest = b""
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def send(
        self, command: str, arguments: dict[str, Any] | None = None, before: bytes = b""
    ) -> None:
        """Send a command; `before` are bytes to send ahead of it."""
        text = json.dumps({"execute": command, "arguments": arguments or {}})
        self._socket.settimeout(60)
        self._socket.sendall(before + text.encode() + b"\n")

    def receive(self, limit_s: float) -> dict[str, Any]:
        """Return the next object; raises TimeoutError after `limit_s` s, EOFError at the end."""
        end = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            self._socket.settimeout(max(end - time.monotonic(), 0.001))
            more = self._socket.recv(1 << 16)
            if not more:
                raise EOFError("the connection ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line.lstrip(b"\xff"))
        return found

    def ask(self, command: str, limit_s: float = 60, **arguments: Any) -> Any:
        """Send a command and return its answer; events in between are left out.

        Argument names have an underscore where the protocol has a dash. Raises TalkError when the
        command is refused, TimeoutError and EOFError as `receive` does.
        """
        self.send(command, {name.replace("_", "-"): value for name, value in arguments.items()})
        end = time.monotonic() + limit_s
        while True:
            answer = self.receive(end - time.monotonic())
            if "error" in answer:
                raise TalkError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
