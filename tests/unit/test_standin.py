"""What answers Docker while docker-flannel does not run."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from driver import standin
from driver.config import DEFAULT_SOCKET
from driver.docker.unix_http import request
from driver.handlers import CALLS
from tests.bed import wait_for

SCRIPT = Path(standin.__file__)
SHORT = "import re,sys; t=open(sys.argv[1]).read(); t=re.sub(r'(GRACE|READY)_S = [0-9.]+', r'\\1_S = {grace}', t); exec(compile(t, sys.argv[1], 'exec'))"  # noqa: E501


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plugins" / "flannel.sock"


@contextmanager
def running(path: Path, notify: Path | None = None, grace: float = 0.5) -> Iterator[None]:
    """Run it as systemd does, but with less patience; in the end its socket is gone."""
    env = {"DOCKER_FLANNEL_SOCKET": str(path), "NOTIFY_SOCKET": str(notify or "")}
    command = (sys.executable, "-I", "-S", "-c", SHORT.format(grace=grace), str(SCRIPT))
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


@contextmanager
def serving(path: Path, *, silent: bool = False) -> Iterator[None]:
    """Serve a socket as docker-flannel does, in place of whatever is there, until killed."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    ended = threading.Event()

    class Connection(standin.Call):
        def handle(self) -> None:
            if not silent:
                self.handle_one_request()
            ended.wait()

        def answer(self) -> None:
            self.send_response_only(202)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = answer  # noqa: N815 - as in standin

    class Served(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True

    with Served(str(path), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def stands_in(path: Path) -> bool:
    """Whether it is at the socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            return standin.is_standin(connection)
    except OSError:
        return False


def test_docker_finds_the_driver_and_is_refused_all_else(path: Path) -> None:
    with running(path):
        wait_for(lambda: stands_in(path), "it to stand in")
        assert path.stat().st_mode & 0o7777 == 0o600
        assert standin.STATIC
        for method, reply in standin.STATIC.items():
            assert request(path, "POST", f"/{method}") == (HTTPStatus.OK, reply)
        for what in [*(("POST", f"/{call}") for call in CALLS), ("GET", "/status")]:
            status, reply = request(path, *what, {"NetworkID": "a" * 64})
            assert status == HTTPStatus.SERVICE_UNAVAILABLE
            assert reply == {"Err": standin.ABSENT, "Error": standin.ABSENT}
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_nonsense_takes_nothing_from_others(path: Path) -> None:
    with running(path):
        wait_for(lambda: stands_in(path), "it to stand in")
        for nonsense in (b"", b"\0" * 100, b"POST /x HTTP/1.1\r\nContent-Length: many\r\n\r\n"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(nonsense)
        assert stands_in(path)


def test_it_waits_for_an_end_and_longer_than_a_restart_takes(path: Path) -> None:
    with running(path, grace=1.5):
        for _ in range(2):
            with serving(path):
                wait_for(lambda: request(path, "GET", "/")[0] == HTTPStatus.ACCEPTED, "a server")
        with serving(path):
            time.sleep(2)  # longer than its patience
            assert request(path, "GET", "/")[0] == HTTPStatus.ACCEPTED
        assert not stands_in(path)
        wait_for(lambda: stands_in(path), "it to stand in")


def test_it_goes_when_docker_flannel_comes(path: Path) -> None:
    with running(path):
        wait_for(lambda: stands_in(path), "it to stand in")
        with serving(path):
            assert request(path, "GET", "/")[0] == HTTPStatus.ACCEPTED
            inode = path.stat().st_ino
            time.sleep(1)
            assert path.stat().st_ino == inode
        wait_for(lambda: stands_in(path), "it to stand in again")
        with serving(path):
            inode = path.stat().st_ino
            time.sleep(1)
        path.unlink()
    assert not path.exists()


def test_another_socket_is_left_at_its_end(path: Path) -> None:
    with running(path, grace=0.1):
        wait_for(lambda: stands_in(path), "it to stand in")
        path.unlink()
        path.touch()
    assert path.is_file()


def test_a_stale_socket_is_replaced_but_no_other_file(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with running(path):
        wait_for(lambda: stands_in(path), "it to stand in")
    path.write_text("mine")
    with running(path, grace=0.1):
        time.sleep(1)
    assert path.read_text() == "mine"


def ready(listener: socket.socket) -> bool:
    try:
        return listener.recv(100) == b"READY=1"
    except TimeoutError:
        return False


@pytest.mark.parametrize("there", ["nobody", "docker-flannel", "one that does not answer"])
def test_dockerd_is_started_soon(path: Path, tmp_path: Path, there: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(0.5)
        grace = 60 if there == "docker-flannel" else 2
        server = nullcontext() if there == "nobody" else serving(path, silent="not" in there)
        with server, running(path, tmp_path / "notify", grace):
            if there != "docker-flannel":
                assert not ready(listener), "too early"
            wait_for(lambda: ready(listener), "the notification", 30)


def test_it_takes_the_socket_that_docker_flannel_has() -> None:
    assert Path(standin.SOCKET) == DEFAULT_SOCKET


def test_its_refusal_is_told_apart(path: Path) -> None:
    with serving(path):
        assert not stands_in(path)
    assert standin.ABSENT.startswith(standin.AWAY)
