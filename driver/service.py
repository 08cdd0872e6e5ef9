"""The service: gunicorn with one worker, its sockets, and the lock that keeps it the only one."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from driver.config import Config
from driver.errors import Conflict, StoreError

if TYPE_CHECKING:
    from driver.reconcile import Reconciler

log = logging.getLogger(__name__)

THREADS = 8
KEEPALIVE_S = 24 * 3600  # dockerd repeats a call with an empty body if we close its connection
STOP_S = 5
PEER = struct.Struct("iII")  # of a socket: process id, 0 in another PID namespace; user; group


class Server(BaseApplication):
    """The gunicorn application: one worker, since two writers would break what is promised."""

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn up."""
        settings: dict[str, Any] = {
            "bind": [f"unix:{path}" for path in self._config.sockets],
            "umask": 0o177,
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "keepalive": KEEPALIVE_S,
            "timeout": 0,
            "graceful_timeout": STOP_S,
            "control_socket_disable": True,
            "loglevel": "warning",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Build the plugin. It runs after the fork: files, sockets and threads live here only.

        A state that cannot be used does not keep the socket away from Docker, which looks for a
        plugin once: every call is answered with what is wrong. Docker waits for an answer as long
        as gunicorn listens: what is loaded only to answer is loaded when the host is as it should
        be. The main process needs none of it.
        """
        with loading():
            from driver.plugin import build  # noqa: PLC0415

            try:
                core: Reconciler | StoreError = build(self._config)
            except StoreError as error:
                log.error("%s", core := error)
            from driver.handlers import create_app  # noqa: PLC0415

            return create_app(core)


@contextmanager
def loading() -> Iterator[None]:
    """Look for no garbage in what is made to stay: that would take a sixth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def serve(config: Config) -> None:
    """Serve until SIGTERM, which leaves the host as it is.

    Errors: Conflict when another instance is at work, StoreError.
    """
    logging.basicConfig(
        level=config.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    held = _only_one(config.state_dir / "lock")
    for path in config.sockets:
        _refuse_served(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        Server(config).run()
    finally:
        os.close(held)


def _only_one(path: Path) -> int:
    """Take the lock that the one instance on a state folder holds; workers inherit it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"state folder {path.parent} cannot be used: {error}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        who = os.read(held, 100).decode().strip() or "it does not say who it is"
        os.close(held)
        raise Conflict(
            f"another docker-flannel works on {path.parent}; stop it first ({who}), or set "
            "another DOCKER_FLANNEL_STATE_DIR"
        ) from None
    pid = os.getpid()
    os.ftruncate(held, 0)
    os.write(held, b"the managed plugin\n" if pid == 1 else f"process {pid}\n".encode())
    return held


def _refuse_served(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return  # nobody there, or a stale file, which gunicorn replaces
        pid, _, _ = PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    who = f"process {pid}" if pid else "the managed plugin, or in a container"
    raise Conflict(f"another process serves {path}; stop it first ({who}), or set another --socket")
