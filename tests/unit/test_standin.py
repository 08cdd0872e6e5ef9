"""What answers Docker while docker-flannel does not run."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from driver import standin
from driver.config import DEFAULT_SOCKET
from driver.docker.unix_http import request
from driver.handlers import CALLS
from driver.service import _prepare
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
def serving(path: Path, *, silent: bool = False) -> Iterator[threading.Event]:
    """Serve a socket as docker-flannel does, in place of whatever is there, until killed.

    The event is set once the stand-in watches.
    """
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name("aside")
    ended, watched = threading.Event(), threading.Event()

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

        def watch(self) -> None:
            self.answer()
            watched.set()

        do_GET, do_POST = answer, watch  # noqa: N815 - as in standin

    class Served(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True

    with Served(str(aside), Connection) as server:
        aside.rename(path)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield watched
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


def test_it_leaves_time_for_a_restart(path: Path) -> None:
    with running(path, grace=60):
        for _ in range(2):
            with serving(path) as watched:
                wait_for(watched.is_set, "it to watch")
        assert not stands_in(path)


def test_it_watches_until_the_end(path: Path) -> None:
    with running(path, grace=1):
        with serving(path) as watched:
            wait_for(watched.is_set, "it to watch")
            inode = path.stat().st_ino
            time.sleep(2)  # longer than its patience
            assert path.stat().st_ino == inode
            assert request(path, "GET", "/")[0] == HTTPStatus.ACCEPTED
            end = time.monotonic()
        wait_for(lambda: stands_in(path), "it to stand in")
        assert time.monotonic() - end >= 1


def test_it_goes_when_docker_flannel_comes(path: Path) -> None:
    with running(path):
        for _ in range(2):
            wait_for(lambda: stands_in(path), "it to stand in")
            with serving(path) as watched:
                inode = path.stat().st_ino
                wait_for(watched.is_set, "it to watch")
                assert path.stat().st_ino == inode
                assert request(path, "GET", "/")[0] == HTTPStatus.ACCEPTED


def test_another_file_is_left_at_its_end(path: Path) -> None:
    with running(path, grace=0.1):
        wait_for(lambda: stands_in(path), "it to stand in")
        other = path.with_name("other")
        other.touch()
        other.rename(path)
    assert path.is_file()


def test_a_stale_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with running(path):
        wait_for(lambda: stands_in(path), "it to stand in")


def test_no_other_file_is_replaced(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    with listening(tmp_path / "notify") as ready, running(path, tmp_path / "notify", grace=0.1):
        wait_for(ready, "it to have tried")
    assert path.read_text() == "mine"


def test_a_socket_on_which_somebody_begins_to_listen_is_no_stale_one(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002
                server.listen()
                return False

        standin.Standin(path, lambda: None, Stop())._remove_stale()
        assert path.is_socket()


def test_a_stand_in_that_ends_is_no_other_instance(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as ending:
        ending.bind(str(path))
        ending.listen()

        def end() -> None:
            with ending.accept()[0]:
                path.unlink()

        thread = threading.Thread(target=end)
        thread.start()
        _prepare(path)
        thread.join()


@contextmanager
def listening(path: Path) -> Iterator[Callable[[], bool]]:
    """Listen as systemd does; yield what returns whether the notification has come."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(0.5)

        def ready() -> bool:
            try:
                return listener.recv(100) == b"READY=1"
            except TimeoutError:
                return False

        yield ready


@pytest.mark.parametrize("there", ["nobody", "docker-flannel", "one that does not answer"])
def test_dockerd_is_started_soon(path: Path, tmp_path: Path, there: str) -> None:
    grace = 120 if there == "docker-flannel" else 1
    server = nullcontext() if there == "nobody" else serving(path, silent="not" in there)
    began = time.monotonic()
    with (
        listening(tmp_path / "notify") as ready,
        server,
        running(path, tmp_path / "notify", grace),
    ):
        wait_for(ready, "the notification", 60)
        if there != "docker-flannel":
            assert time.monotonic() - began >= grace


def test_it_takes_the_socket_that_docker_flannel_has() -> None:
    assert Path(standin.SOCKET) == DEFAULT_SOCKET


def test_its_refusal_is_told_apart(path: Path) -> None:
    with serving(path):
        assert not stands_in(path)
    assert standin.ABSENT.startswith(standin.AWAY)
