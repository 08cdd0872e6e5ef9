"""The service: gunicorn with one worker, its sockets, and what happens before and after."""

from __future__ import annotations

import errno
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
from gunicorn.glogging import Logger

from driver import logs
from driver.api.standby import Standby
from driver.config import DEFAULT_SOCKET, Basics, Config
from driver.errors import BadRequest, Conflict, HostError, StoreError
from driver.host import upgrade
from driver.host.journal import NAME
from driver.host.lock import Lock
from driver.host.narrow import MANAGED, narrow
from driver.host.rights import check_rights
from driver.setup.sources import Sources
from driver.standin import is_standin
from driver.worker import Worker

if TYPE_CHECKING:
    from driver.core.reconciler import Reconciler

THREADS = 8
STOP_S = 5
PEER = struct.Struct("iII")  # of a socket: process id, 0 in another PID namespace; user; group
RESTART = "correct it and restart docker-flannel"


def serve(sources: Sources) -> None:
    """Serve until SIGTERM, which leaves the host as it is.

    Anything else that is wrong, such as a bad setting, is the answer to Docker's calls.
    Errors: Conflict if another instance runs, HostError if no socket can be made.
    """
    settings = sources.options, sources.variables
    basics = Basics.read(*settings)
    logs.start(basics.log_level, sources.environment, managed=MANAGED.exists())
    narrow([basics.state_dir, basics.subnet_file.parent])
    lock = Lock(basics.state_dir)
    with suppress(StoreError):  # the worker tries again and reports it
        lock.take()
    try:
        config: Config | BadRequest = Config.read(*settings)
    except BadRequest as error:
        config = error
    sockets, fault = _places(basics.sockets)
    main = os.getpid()
    try:
        Server(sockets, Builder(lock, fault or config, sources)).run()
    finally:
        if os.getpid() == main:  # not in a worker that ends
            upgrade.save(basics.state_dir / NAME)


class Server(BaseApplication):
    """The gunicorn application. It has one worker, since two would both write the state."""

    def __init__(self, sockets: Sequence[Path], build: Callable[[], WSGIApplication]) -> None:
        self._sockets, self._build = sockets, build
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn."""
        settings: dict[str, Any] = {
            "bind": [f"unix:{path}" for path in self._sockets],
            "umask": 0o177,
            "workers": 1,
            "worker_class": Worker,
            "threads": THREADS,
            "timeout": 0,
            "graceful_timeout": STOP_S,
            "control_socket_disable": True,
            "logger_class": _Logger,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application. Called in the worker: only that has files and threads."""
        with loading():
            return Standby(self._build)


class _Logger(Logger):
    """gunicorn's own events, where all others are logged."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002 - gunicorn's settings have another form
        """Show what is wrong."""
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)


@contextmanager
def loading() -> Iterator[None]:
    """Collect no garbage while lasting objects are made: it would take a sixth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Builder:
    """Builds the application. Called again after a failure, it keeps what it has built."""

    def __init__(self, lock: Lock, config: Config | BadRequest, sources: Sources) -> None:
        self._lock, self._config, self._sources = lock, config, sources
        self._core: Reconciler | None = None

    def __call__(self) -> WSGIApplication:
        """Return the application.

        Docker waits for an answer as soon as gunicorn listens, so the host comes first, and what
        answers calls is loaded last; the main process loads none of it.
        Errors: FlannelError, and whatever an import raises.
        """
        if isinstance(self._config, BadRequest):
            raise BadRequest(f"{self._config}; {RESTART}")
        if self._core is None:
            check_rights()
            self._lock.take()
            upgrade.recover(self._config.state_dir / NAME)
            from driver.wiring import build  # noqa: PLC0415

            self._core = build(self._config)
        from driver.wiring import application  # noqa: PLC0415

        return application(self._config, self._core, self._sources)


def _places(wanted: Sequence[Path]) -> tuple[list[Path], BadRequest | None]:
    """Return the wanted sockets that can be made, or else the default; and why one cannot.

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
    if found:
        return found, fault
    try:
        _prepare(DEFAULT_SOCKET)
    except OSError as error:
        raise HostError(f"{fault}, and neither can {DEFAULT_SOCKET}: {error}") from None
    return [DEFAULT_SOCKET], BadRequest(f"{fault}; meanwhile {DEFAULT_SOCKET} is served")


def _prepare(path: Path) -> None:
    """Make the folder of a socket and check that the socket can be made there.

    Errors: Conflict when another process serves it; OSError.
    """
    _refuse_served(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_socket():
        raise FileExistsError(errno.EEXIST, "something that is no socket is there")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(path))
    path.unlink(missing_ok=True)


def _refuse_served(path: Path) -> None:
    for _ in range(2):  # a stand-in that is ending answers no more, and is gone the second time
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                return  # nobody serves it; a stale file is replaced
            pid, *_ = PEER.unpack(
                probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
            )
            if is_standin(probe):
                return  # it goes when the file is another's
    who = f"process {pid}" if pid else "the managed plugin, or in a container"
    raise Conflict(f"another process serves {path}; stop it first ({who}), or set another --socket")
