"""The plugin behind a proxy that kills it at a chosen call. Runs inside a host, in its place.

Like systemd with Restart=always, it starts the plugin again at once. Docker's calls go to it and
come back byte for byte. A test talks to the proxy on the same socket: `Crasher.Arm` {at, mode,
delay_s} says at which call from now on to kill, `Crasher.Report` tells what was called and how
often the plugin was killed since. Modes: "before" the call gets there; "after" it was answered,
which the caller never hears; "during": `delay_s` seconds after it was passed on.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FRONT = Path("/run/docker/plugins/flannel.sock")
BEHIND = "/run/flannel-behind.sock"
PATIENCE_S = 60.0
STATUS = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def read_message(sock: socket.socket) -> bytes:
    """Read one HTTP message with its body; b"" when the connection ends before."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        size = LENGTH.search(head)
        if end and len(body) >= (int(size[1]) if size else 0):
            return data
        part = sock.recv(1 << 16)
        if not part:
            return b""
        data += part


def ask(request: bytes) -> bytes:
    """Pass a request on to the plugin and give its answer, b"" when it breaks off."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(BEHIND)
            sock.sendall(request)
            return read_message(sock)
        except OSError:
            return b""


class Plugin:
    """The plugin as a child that is always started again."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.kills = 0
        self._group = 0
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while True:
            command = [sys.executable, "-m", "driver", "serve", "--socket", BEHIND]
            child = subprocess.Popen(command, start_new_session=True)
            self._group = child.pid
            while child.poll() is None and not ask(STATUS).startswith(b"HTTP/1.1 200"):
                time.sleep(0.005)
            if child.poll() is None:
                self.ready.set()
            child.wait()
            self.ready.clear()
            end_group(child.pid)

    def kill(self) -> None:
        """Kill all its processes, and with them the connections they have."""
        self.ready.clear()
        self.kills += 1
        end_group(self._group)
        for sock in list(Front.clients):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def end_group(group: int) -> None:
    """Kill a process group and wait until it is gone."""
    with suppress(ProcessLookupError):
        while True:
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.001)


class Trap:
    """When to kill, and what has been called since that was said."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.arm({})

    def arm(self, order: dict[str, Any]) -> None:
        """Set the trap; without "at" it only listens."""
        with self._lock:
            self.at, self.mode = order.get("at", 0), order.get("mode", "")
            self.delay_s = order.get("delay_s", 0.0)
            self.calls: list[str] = []

    def step(self, name: str) -> str:
        """Count a call; give the mode when it is the one."""
        with self._lock:
            self.calls.append(name)
            return self.mode if len(self.calls) == self.at else ""


class Front(socketserver.BaseRequestHandler):
    """One connection of dockerd's, or of a test."""

    clients: set[socket.socket] = set()  # noqa: RUF012 - all connections together

    def handle(self) -> None:
        """Answer until the client goes, or the plugin is killed."""
        self.clients.add(self.request)
        try:
            with suppress(OSError):
                while (request := read_message(self.request)) and (reply := self._answer(request)):
                    self.request.sendall(reply)
        finally:
            self.clients.discard(self.request)

    def _answer(self, request: bytes) -> bytes:
        name = request.split(b" ", 2)[1].decode().lstrip("/")
        if name == "Crasher.Arm":
            trap.arm(json.loads(request.partition(b"\r\n\r\n")[2]))
            plugin.kills = 0
            return written({})
        if name == "Crasher.Report":
            return written({"calls": trap.calls, "kills": plugin.kills})
        plugin.ready.wait(PATIENCE_S)
        return pass_on(request, trap.step(name))


def written(body: dict[str, Any]) -> bytes:
    """Write an answer of the proxy's own."""
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)


def pass_on(request: bytes, mode: str) -> bytes:
    """Pass a call on and kill as told; b"" ends the connection without an answer."""
    if mode == "before":
        plugin.kill()
        return b""
    if mode == "during":
        threading.Timer(trap.delay_s, plugin.kill).start()
    reply = ask(request)
    if mode == "after":
        plugin.kill()
        return b""
    return reply


if __name__ == "__main__":
    plugin, trap = Plugin(), Trap()
    FRONT.parent.mkdir(parents=True, exist_ok=True)
    FRONT.unlink(missing_ok=True)
    with socketserver.ThreadingUnixStreamServer(str(FRONT), Front) as server:
        server.daemon_threads = True
        server.serve_forever()
