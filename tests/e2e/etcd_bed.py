"""Real etcd on loopback: members with data in a folder, a throw-away CA, and a proxy that delays.

Ports are free ones of the kernel's choice. What is started ends with its `with` block.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from driver.errors import FlannelError
from driver.flannel.etcd.client import Etcd
from driver.flannel.etcd.registry import KeyRange
from driver.flannel.etcd.settings import EtcdSettings
from tests.bed import wait_for
from tests.unit.etcd_member import PREFIX

START_S = 60
ALL = KeyRange(f"{PREFIX}/", prefix=True)
UNDECIDED = ("timed out", "Unavailable", "DeadlineExceeded", "no leader", "leader changed")


def undecided(stderr: str) -> bool:
    """Whether etcdctl failed only because the members are busy choosing a leader."""
    return any(words in stderr for words in UNDECIDED)


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


@dataclass
class Server:
    """One member of an etcd. It can be killed, frozen and started again on its data."""

    name: str
    folder: Path
    port: int
    argv: list[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        scheme = "https" if "--cert-file" in self.argv else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


@dataclass
class Cluster:
    """An etcd of some members."""

    servers: list[Server]
    clients: list[Etcd] = field(default_factory=list)

    @property
    def urls(self) -> str:
        return ",".join(server.url for server in self.servers)

    def client(self, urls: str = "", limit_s: float = 5.0, **settings: Any) -> Etcd:
        """Return a client; by default its limit is generous."""
        made = Etcd(EtcdSettings.read(urls or self.urls, **settings), limit_s)
        self.clients.append(made)
        return made

    def etcdctl(self, *argv: str) -> dict[str, Any]:
        """Run etcdctl on the members that are alive, once they agree; gives its JSON."""
        done = wait_for(lambda: self._etcdctl(argv), f"etcdctl {' '.join(argv)}", START_S)
        assert done
        assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
        with suppress(ValueError):
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        return {}

    def _etcdctl(self, argv: Sequence[str]) -> subprocess.CompletedProcess[bytes] | None:
        alive = ",".join(s.url for s in self.servers if s.process)
        done = subprocess.run(
            ["etcdctl", "--endpoints", alive, "-w", "json", *argv],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return None if done.returncode and undecided(done.stderr.decode()) else done

    def values(self, prefix: str = "/") -> dict[str, str]:
        entries, _ = self.client().read(KeyRange(prefix, prefix=True))
        return {e.key: (e.value or b"").decode() for e in entries}

    def revision(self) -> int:
        return self.client().read(KeyRange("/"))[1]

    def compact(self) -> None:
        self.etcdctl("compaction", "--physical", str(self.revision()))

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def start(self) -> None:
        for server in self.servers:
            server.start()


@contextmanager
def cluster(folder: Path, members: int = 1, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """Start an etcd and wait until it answers, unless it needs settings to do so."""
    ports = free_ports(2 * members)
    tls = "--cert-file" in options
    scheme = "https" if tls else "http"
    peers = [f"m{n}=http://127.0.0.1:{ports[members + n]}" for n in range(members)]
    servers = []
    for n in range(members):
        url, peer = f"{scheme}://127.0.0.1:{ports[n]}", peers[n].partition("=")[2]
        argv = [
            "etcd", "--name", f"m{n}", "--data-dir", str(folder / f"m{n}"),
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", ",".join(peers), "--unsafe-no-fsync", *options,
        ]  # fmt: skip
        servers.append(Server(f"m{n}", folder, ports[n], argv))
    made = Cluster(servers)
    try:
        made.start()
        for server in servers:
            wait_for(partial(listens, server.port), f"etcd on port {server.port}", START_S)
        if not tls:
            wait_for(lambda: answers(made.client()), "an answer of etcd", START_S)
        yield made
    finally:
        for client in made.clients:
            client.close()
        made.kill()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def answers(client: Etcd) -> bool:
    try:
        client.read(KeyRange("/"))
    except FlannelError:
        return False
    return True


def took(call: Callable[[], object]) -> tuple[float, FlannelError]:
    """Return how long a call took to fail, and how."""
    begun = time.monotonic()
    with pytest.raises(FlannelError) as caught:
        call()
    return time.monotonic() - begun, caught.value


def supports(option: str) -> bool:
    """Whether this etcd knows an option."""
    done = subprocess.run(["etcd", "--help"], capture_output=True, timeout=30, check=False)
    return option.encode() in done.stdout + done.stderr


# --- certificates ---


class Authority:
    """A CA in a folder, made by openssl."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self.name = folder, name
        self.cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                f"/CN={name}", "-keyout", str(key), "-out", str(self.cert))  # fmt: skip

    def issue(self, name: str, alt: str = "IP:127.0.0.1,DNS:localhost") -> tuple[Path, Path]:
        """Return a certificate and its key."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extra = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extra.write_text(f"subjectAltName={alt}\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl(self.folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                "-keyout", str(key), "-out", str(request))  # fmt: skip
        openssl(self.folder, "x509", "-req", "-in", str(request), "-CA", str(self.cert), "-CAkey",
                str(self.folder / f"{self.name}.key"), "-CAcreateserial", "-days", "2",
                "-extfile", str(extra), "-out", str(cert))  # fmt: skip
        return cert, key


def openssl(folder: Path, *argv: str) -> None:
    done = subprocess.run(
        ["openssl", *argv], cwd=folder, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


# --- a proxy ---


class Proxy:
    """A way to a port that is slow, or goes dead without a word, as told."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self.dead = False
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._closed = False
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def _start(self, body: Callable[[], None]) -> None:
        threading.Thread(target=body, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to), 5)
                far.settimeout(None)
            except OSError:
                if self._closed:
                    return
                continue
            self._sockets += [near, far]
            self._start(partial(self._copy, near, far))
            self._start(partial(self._copy, far, near))

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                end = time.monotonic() + self.delay_s
                while (self.dead or time.monotonic() < end) and not self._closed:
                    time.sleep(0.01)
                target.sendall(chunk)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed = True
        for each in (self._server, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
