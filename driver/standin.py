"""Answers Docker on the plugin's sockets while docker-flannel does not run.

Where nobody listens, dockerd tries each call again for 15 s, and at its start it makes several for
each network. Where somebody listens and does not answer, it waits without end. So this process
takes a socket when docker-flannel has been away for some seconds: it says what the driver is, and
refuses the rest at once. docker-flannel takes the socket back when it starts.

It runs as a script, and imports nothing but Python's own modules: docker-flannel may be away
because what it imports is broken.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from select import select
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

AWAY = "docker-flannel is not available"  # every refusal of a call while that is so begins with it
ABSENT = f"{AWAY}: it is not running; start it with `systemctl start docker-flannel`"
SOCKET = "/run/docker/plugins/flannel.sock"
MARK = "/standin"  # only this process has something here
GRACE_S = 5.0  # a restart of docker-flannel takes less, and dockerd repeats its calls meanwhile
READY_S = 10.0  # dockerd starts after this, whatever docker-flannel does
WAIT_S = 10.0  # for a request to become complete
TICK_S = 0.2
MOST = 1 << 20  # bytes of a request's body
SPACE = "flannel"  # one name for both address spaces: Docker 27+ then skips its overlap loop
# the calls whose answer is always the same
STATIC: dict[str, dict[str, Any]] = {
    "Plugin.Activate": {"Implements": ["NetworkDriver", "IpamDriver"]},
    "NetworkDriver.GetCapabilities": {
        "Scope": "local",
        "ConnectivityScope": "local",
        "GwAllocChecker": False,
    },
    "NetworkDriver.GwAllocCheck": {"SkipIPv4": False, "SkipIPv6": False},
    # Docker ignores what a remote driver reports on an endpoint; a failure would end the container
    "NetworkDriver.EndpointOperInfo": {"Value": {}},
    "NetworkDriver.DiscoverNew": {},
    "NetworkDriver.DiscoverDelete": {},
    "IpamDriver.GetCapabilities": {"RequiresMACAddress": False, "RequiresRequestReplay": False},
    "IpamDriver.GetDefaultAddressSpaces": {
        "LocalDefaultAddressSpace": SPACE,
        "GlobalDefaultAddressSpace": SPACE,
    },
}


def is_standin(connection: socket.socket) -> bool:
    """Return whether this process is at the other end of a connection, which is used up by that."""
    connection.settimeout(WAIT_S)
    try:
        connection.sendall(f"GET {MARK} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return connection.recv(1 << 12).startswith(b"HTTP/1.0 204")
    except OSError:
        return False


class Call(BaseHTTPRequestHandler):
    """A request. HTTP/1.0: each has a connection of its own, which ends with the answer."""

    timeout = WAIT_S

    def do_POST(self) -> None:
        """Answer Docker."""
        self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MOST))
        reply = STATIC.get(self.path[1:])
        if reply is None:
            self._answer(503, {"Err": ABSENT, "Error": ABSENT})
        else:
            self._answer(200, reply)

    def do_GET(self) -> None:
        """Answer our own command line, or docker-flannel that asks who is here."""
        if self.path == MARK:
            self.send_response_only(204)
            self.end_headers()
        else:
            self._answer(503, {"Err": ABSENT, "Error": ABSENT})

    def _answer(self, status: int, reply: dict[str, Any]) -> None:
        body = json.dumps(reply).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no calls: there may be many."""


class Server(ThreadingMixIn, UnixStreamServer):
    """A socket at a path where no file is; see `close`. Errors: OSError."""

    daemon_threads = True
    request_queue_size = 128
    timeout = TICK_S

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Call)
        path.chmod(0o600)
        self._path, self._inode = path, path.lstat().st_ino

    def in_place(self) -> bool:
        """Return whether the path still leads here."""
        try:
            return self._path.lstat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Answer those who have connected, and remove the file if it is this server's."""
        if self.in_place():
            self._path.unlink()
        while select([self], [], [], 0)[0]:
            self.handle_request()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Let go of a client that speaks no HTTP."""


class Standin:
    """Has one socket whenever docker-flannel has not."""

    def __init__(self, path: Path, ready: Callable[[], None], stop: threading.Event) -> None:
        """`ready` is called whenever somebody answers at the socket."""
        self._path, self._ready, self._stop = path, ready, stop
        self._patience_s = READY_S  # when the machine starts, all is slow

    def run(self) -> None:
        """Watch and stand in by turns, until `stop`."""
        while not self._stop.is_set():
            try:
                self._wait_until_away()
                self._stand_in()
            except OSError as error:
                _say(f"{self._path}: {error}")
                self._stop.wait(GRACE_S)

    def _wait_until_away(self) -> None:
        """Return when nobody has answered for some seconds."""
        end = time.monotonic() + self._patience_s
        self._patience_s = GRACE_S
        while time.monotonic() < end and not self._stop.is_set():
            if self._watched():
                end = time.monotonic() + GRACE_S
            self._stop.wait(TICK_S)

    def _watched(self) -> bool:
        """Stay connected for as long as somebody is there; return whether it has answered."""
        answered = False
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self._path))
                call = "POST /NetworkDriver.DiscoverNew HTTP/1.1\r\nHost: x\r\nContent-Length: 2"
                connection.sendall(f"{call}\r\n\r\n{{}}".encode())
                while connection.recv(1 << 12):
                    answered = True
                    self._ready()
            except OSError:
                pass
        return answered

    def _stand_in(self) -> None:
        """Answer until the path leads elsewhere."""
        if self._stop.is_set():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        server = Server(self._path)
        _say(f"docker-flannel does not run: Docker gets its answers on {self._path} from here")
        self._ready()
        try:
            while server.in_place() and not self._stop.is_set():
                server.handle_request()
        finally:
            server.close()
        _say(f"{self._path} is given up")

    def _remove_stale(self) -> None:
        """Remove the socket of a process that was killed; put it back if it is another by now."""
        if not self._path.is_socket():
            return
        before, aside = self._path.lstat().st_ino, self._path.with_name(".flannel.stale")
        for _ in range(2):  # docker-flannel makes its socket a moment before it listens there
            with socket.socket(socket.AF_UNIX) as connection:
                if connection.connect_ex(str(self._path)) == 0:
                    return
            self._stop.wait(TICK_S)
        self._path.rename(aside)
        if aside.lstat().st_ino == before:
            aside.unlink()
        else:
            aside.rename(self._path)


def main(environment: Mapping[str, str]) -> None:
    """Stand in on each socket of the setting, until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    os.umask(0o077)
    paths = [Path(text) for text in environment.get("DOCKER_FLANNEL_SOCKET", "").split(",")]
    if not all(path.is_absolute() for path in paths):
        paths = [Path(SOCKET)]  # docker-flannel does the same
    answered, stop = [threading.Event() for _ in paths], threading.Event()
    threads = [
        threading.Thread(target=Standin(path, event.set, stop).run, daemon=True)
        for path, event in zip(paths, answered, strict=True)
    ]
    for thread in threads:
        thread.start()
    threading.Thread(
        target=_notify, args=(answered, environment.get("NOTIFY_SOCKET")), daemon=True
    ).start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    stop.set()
    for thread in threads:
        thread.join(2 * TICK_S)  # one that watches holds nothing


def _notify(answered: list[threading.Event], name: str | None) -> None:
    """Have systemd start dockerd when all sockets are answered, at the latest after `READY_S`."""
    end = time.monotonic() + READY_S
    for event in answered:
        event.wait(max(0.0, end - time.monotonic()))
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect(f"\0{name[1:]}" if name.startswith("@") else name)
            connection.sendall(b"READY=1")


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


if __name__ == "__main__":
    main(os.environ)
