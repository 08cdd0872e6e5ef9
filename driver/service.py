"""The service: gunicorn with one worker, its sockets, and the lock that keeps it the only one."""

from __future__ import annotations

import errno
import fcntl
import gc
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.types import WSGIApplication

from gunicorn.app.base import BaseApplication

from driver.api.standby import Standby
from driver.config import DEFAULT_SOCKET, Config, Footing
from driver.errors import BadRequest, Conflict, HostError, StoreError
from driver.host import upgrade
from driver.host.journal import NAME
from driver.host.narrow import narrow
from driver.host.rights import check_rights
from driver.server import Worker

if TYPE_CHECKING:
    from driver.core.reconciler import Reconciler

log = logging.getLogger(__name__)

THREADS = 8
STOP_S = 5
PEER = struct.Struct("iII")  # of a socket: process id, 0 in another PID namespace; user; group
RESTART = "correct it and restart docker-flannel"


class Server(BaseApplication):
    """The gunicorn application: one worker, since two writers would break what is promised."""

    def __init__(self, sockets: Sequence[Path], make: Callable[[], WSGIApplication]) -> None:
        self._sockets, self._make = sockets, make
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn up."""
        settings: dict[str, Any] = {
            "bind": [f"unix:{path}" for path in self._sockets],
            "umask": 0o177,
            "workers": 1,
            "worker_class": Worker,
            "threads": THREADS,
            "timeout": 0,
            "graceful_timeout": STOP_S,
            "control_socket_disable": True,
            "loglevel": "warning",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Build the plugin. It runs after the fork: files, sockets and threads live here only.

        Docker waits for an answer as long as gunicorn listens: what is loaded only to answer is
        loaded when the host is as it should be. The main process needs none of it.
        """
        with loading():
            return Standby(self._make)


@contextmanager
def loading() -> Iterator[None]:
    """Look for no garbage in what is made to stay: that would take a sixth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def serve(footing: Footing, config: Config | BadRequest) -> None:
    """Serve until SIGTERM, which leaves the host as it is.

    Whatever else is wrong, a bad setting too, is what Docker's calls are answered with.
    Errors: Conflict when another instance is at work, HostError when no socket can be made.
    """
    logging.basicConfig(
        level=footing.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    narrow([footing.state_dir, footing.subnet_file.parent])
    lock = Lock(footing.state_dir / "lock")
    with suppress(StoreError):  # the worker tries again, and tells
        lock.take()
    sockets, fault = _places(footing.sockets)
    main = os.getpid()
    try:
        Server(sockets, Maker(lock, fault or config)).run()
    finally:
        if os.getpid() == main:  # and not a worker that ends
            upgrade.put_by(footing.state_dir / NAME)


class Maker:
    """Makes the plugin, as often as it is tried: what has been built once is not built again."""

    def __init__(self, lock: Lock, config: Config | BadRequest) -> None:
        self._lock, self._config = lock, config
        self._core: Reconciler | None = None

    def __call__(self) -> WSGIApplication:
        """Return the application.

        Errors: FlannelError, and whatever a part raises that cannot be loaded.
        """
        if isinstance(self._config, BadRequest):
            raise BadRequest(f"{self._config}; {RESTART}")
        if self._core is None:
            check_rights()
            self._lock.take()
            upgrade.bring_back(self._config.state_dir / NAME)
            from driver.wiring import build  # noqa: PLC0415

            self._core = build(self._config)
        from driver.handlers import create_app  # noqa: PLC0415

        return create_app(self._core)


def _places(wanted: Sequence[Path]) -> tuple[list[Path], BadRequest | None]:
    """Return where to listen: what is wanted where that can be, else the default; and what not.

    Errors: Conflict, HostError.
    """
    found: list[Path] = []
    fault: BadRequest | None = None
    for path in wanted:
        try:
            _prepare(path)
            found.append(path)
        except OSError as error:
            fault = BadRequest(f"--socket {str(path)!r} cannot be made: {error.strerror or error}")
    if fault is None or found:
        return found, fault
    try:
        _prepare(DEFAULT_SOCKET)
    except OSError as error:
        raise HostError(f"{fault}, and neither can {DEFAULT_SOCKET}: {error}") from None
    return [DEFAULT_SOCKET], BadRequest(f"{fault}; meanwhile {DEFAULT_SOCKET} is served")


def _prepare(path: Path) -> None:
    """Make the folder of a socket, and see that the socket can be made.

    Errors: Conflict when a living process serves it; OSError.
    """
    _refuse_served(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_socket():
        raise FileExistsError(errno.EEXIST, "something that is no socket is there")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(path))
    path.unlink()


class Lock:
    """What keeps a second instance off a state folder; the worker inherits it when it is taken."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, -1

    def take(self) -> None:
        """Take the lock, unless it is held.

        Errors: StoreError when the folder cannot be used; Conflict when another instance has it.
        """
        if self._held >= 0:
            return
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"state folder {folder} cannot be used: {error.strerror}; let root write there, "
                "with the systemd unit by ReadWritePaths=, or set another DOCKER_FLANNEL_STATE_DIR"
            ) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            who = os.read(held, 100).decode(errors="replace").strip() or "it does not say who it is"
            os.close(held)
            raise Conflict(
                f"another docker-flannel works on {folder}; stop it first ({who}), or set "
                "another DOCKER_FLANNEL_STATE_DIR"
            ) from None
        self._held, pid = held, os.getpid()
        os.ftruncate(held, 0)
        os.write(held, b"the managed plugin\n" if pid == 1 else f"process {pid}\n".encode())


def _refuse_served(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return  # nobody there, or a stale file, which gunicorn replaces
        pid, _, _ = PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    who = f"process {pid}" if pid else "the managed plugin, or in a container"
    raise Conflict(f"another process serves {path}; stop it first ({who}), or set another --socket")
