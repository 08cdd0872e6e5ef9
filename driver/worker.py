"""gunicorn's worker process, in which waitress serves the sockets.

gunicorn's own thread worker parses requests in the threads of its pool, so eight incomplete
requests block everything. waitress reads and writes all connections in one thread, without waiting
for any, and its pool gets complete requests. Added here: a limit on how long a connection may keep
us waiting. A connection that is idle between requests stays open: if we closed one that dockerd is
about to use, dockerd would repeat the call with an empty body.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, cast

from gunicorn.workers.base import Worker as GunicornWorker
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import UnixWSGIServer
from waitress.task import ThreadedTaskDispatcher

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

WAIT_S = 10.0  # for a request to become complete, and for its answer to be read
TICK_S = 1
LIMITS = {
    "connection_limit": 1000,
    "max_request_header_size": 1 << 14,
    "max_request_body_size": 1 << 20,  # a container with thousands of ports needs half of it
}


class Connection(HTTPChannel):
    """A connection. `awaited_since`: when we began to wait for a request, None if we do not."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.awaited_since: float | None = time.monotonic()
        super().__init__(*args, **kwargs)

    def received(self, data: bytes) -> bool:
        """Take bytes from the client. The limit is for the whole request, not for its parts."""
        begins = self.request is None
        taken = super().received(data)
        if self.request is None:
            self.awaited_since = None
        elif begins:
            self.awaited_since = time.monotonic()
        return taken

    @property
    def overdue(self) -> bool:
        """Whether the client has kept us waiting for too long."""
        if self.requests:
            return False
        if self.total_outbufs_len:
            return time.time() - self.last_activity > WAIT_S
        return self.awaited_since is not None and time.monotonic() - self.awaited_since > WAIT_S


class Listener(UnixWSGIServer):
    """One of the sockets that Docker connects to."""

    channel_class = Connection

    def maintenance(self, now: float) -> None:  # noqa: ARG002 - waitress' clock may jump
        """Close overdue connections. waitress calls this every `TICK_S`."""
        for connection in self.connections():
            if connection.overdue:
                connection.will_close = True

    def connections(self) -> list[Connection]:
        """Return the open connections to this socket."""
        return list(cast("dict[int, Connection]", self.active_channels).values())


class _Signals(wasyncore.file_dispatcher):
    """The pipe through which a signal wakes the loop."""

    def handle_read(self) -> None:
        self.recv(1 << 12)


class Worker(GunicornWorker):
    """The only worker. gunicorn's setting `threads` is how many calls run at once."""

    def run(self) -> None:
        """Serve until SIGTERM, then finish the calls in progress."""
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a full pool is no news
        connections: dict[int, Any] = {}
        pool = ThreadedTaskDispatcher()
        pool.set_thread_count(self.cfg.threads)
        sockets: list[Any] = self.sockets  # gunicorn's wrappers
        listeners = [self._listener(made.sock, connections, pool) for made in sockets]
        _Signals(cast("Any", self.PIPE[0]), map=connections)
        while self.alive and self.ppid == os.getppid():
            wasyncore.poll2(TICK_S, connections)  # poll: select refuses files beyond the 1,024th
        for listener in listeners:
            listener.accepting = False
        end = time.monotonic() + self.cfg.graceful_timeout
        while any(_busy(listener) for listener in listeners) and time.monotonic() < end:
            wasyncore.poll2(TICK_S / 10, connections)

    def _listener(
        self, sock: Any, connections: dict[int, Any], pool: ThreadedTaskDispatcher
    ) -> Listener:
        settings = Adjustments(
            ident=None,
            cleanup_interval=TICK_S,
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
            **LIMITS,
        )
        where = (sock.family, sock.type, sock.proto, sock.getsockname())
        application = cast("WSGIApplication", self.wsgi)
        return Listener(
            application, connections, True, sock, pool, settings, where, bind_socket=False
        )


def _busy(listener: Listener) -> bool:
    return any(c.requests or c.total_outbufs_len for c in listener.connections())
