"""The server of the sockets: a worker of gunicorn that never waits for a client.

One thread reads and writes all connections without blocking; a pool answers whole requests. So
half a request, a slow one, or a client that does not read its answer takes nothing from others.
A connection that is silent between two requests stays, for dockerd repeats a call with an empty
body when we close a connection it is about to use. Imports `http_reader`, `wsgi`.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import cast
from wsgiref.types import WSGIApplication

from gunicorn.workers.base import Worker as GunicornWorker

from driver import wsgi
from driver.http_reader import Reader, Refusal, Request

log = logging.getLogger(__name__)

REQUEST_S = 10.0  # for a request to become whole
ANSWER_S = 10.0  # for a client to take its answer
LINGER_S = 2.0  # for a client to hang up once it has been told that the connection ends
TICK_S = 0.5
MOST = 1000  # connections; dockerd has a few
ACCEPTS = 64  # connections at a time
RECEIVE = 1 << 16  # bytes at a time


class Client:
    """One connection. At `due` it is closed, whatever it waits for; None is never."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = Reader()
        self.answer = b""  # what is not sent yet
        self.keep = True  # another request may follow
        self.busy = False  # a call is being answered
        self.used = False  # a whole request has come
        self.since = time.monotonic()
        self.due: float | None = None

    def send(self) -> None:
        """Send of the answer what goes without waiting."""
        try:
            self.answer = self.answer[self.sock.send(self.answer) :]
        except BlockingIOError:
            return
        except OSError:  # nobody is there to take it
            self.answer, self.keep = b"", False

    def within(self, seconds: float) -> None:
        """Set `due`, unless it is set: what comes slowly gets no more time."""
        if self.due is None:
            self.due = time.monotonic() + seconds


class Worker(GunicornWorker):
    """The one worker. `threads` of gunicorn's settings answer calls."""

    def init_process(self) -> None:
        """Make what the loop needs, load the application and run."""
        self._poller = selectors.DefaultSelector()
        self._pool = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix="call")
        self._answered: SimpleQueue[Client] = SimpleQueue()
        self._clients: set[Client] = set()
        super().init_process()

    def run(self) -> None:
        """Serve until SIGTERM, then finish the calls that have begun."""
        for listener in self.sockets:
            listener.setblocking(False)
            self._poller.register(listener, selectors.EVENT_READ, self._accept)
        self._poller.register(self.PIPE[0], selectors.EVENT_READ, self._woken)  # signals, calls
        tick = time.monotonic()
        while self.alive and self.ppid == os.getppid():
            self._turn()
            if time.monotonic() - tick >= TICK_S:
                tick = time.monotonic()
                self._expire(tick)
        for listener in self.sockets:
            self._poller.unregister(listener)
            listener.close()
        end = time.monotonic() + self.cfg.graceful_timeout
        while any(c.busy or c.answer for c in self._clients) and time.monotonic() < end:
            self._turn()

    def _turn(self) -> None:
        for key, _ in self._poller.select(TICK_S):
            try:
                key.data(key.fileobj)
            except Exception as error:  # one connection must not end the others
                log.error("serving a connection failed", exc_info=error)

    # --- connections ---

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no file is left for it
                log.warning("a connection cannot be accepted: %s", error)
                self._make_room()
                return
            sock.setblocking(False)
            client = Client(sock)
            self._clients.add(client)
            self._await(client, selectors.EVENT_READ)
            if len(self._clients) > MOST:
                self._make_room()

    def _make_room(self) -> None:
        """Close the connection that is missed least: the oldest of those never used."""
        idle = [c for c in self._clients if not c.busy]
        if idle:
            self._close(min(idle, key=lambda c: (c.used, c.since)))

    def _expire(self, now: float) -> None:
        for client in [c for c in self._clients if c.due is not None and c.due <= now]:
            if client.keep and client.reader.begun and not client.answer:
                self._refuse(client, Refusal(408, f"no whole request came within {REQUEST_S:g} s"))
            else:
                self._close(client)

    def _close(self, client: Client) -> None:
        self._await(client, 0)
        self._clients.discard(client)
        client.sock.close()

    def _await(self, client: Client, event: int) -> None:
        """Have the poller tell when a connection can be read or written, 0 for neither."""
        with suppress(KeyError):
            self._poller.unregister(client.sock)
        if event:
            act = self._read if event == selectors.EVENT_READ else self._write
            self._poller.register(client.sock, event, lambda _: act(client))

    # --- requests ---

    def _read(self, client: Client) -> None:
        if client not in self._clients:
            return  # closed since the poller told of it
        try:
            data = client.sock.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(client)
        elif client.keep:  # else it is not heard any more
            client.reader.feed(data)
            self._go_on(client)

    def _write(self, client: Client) -> None:
        if client not in self._clients:
            return
        client.send()
        if not client.answer:
            client.due = None
        self._go_on(client)

    def _go_on(self, client: Client) -> None:
        """Hand on the next request; without one, wait for what is missing."""
        if client.answer:
            client.within(ANSWER_S)
            self._await(client, selectors.EVENT_WRITE)
            return
        if not client.keep:
            self._hang_up(client)
            return
        try:
            request = client.reader.take()
        except Refusal as refusal:
            self._refuse(client, refusal)
            return
        if request is None:
            if client.reader.begun:
                client.within(REQUEST_S)
            self._await(client, selectors.EVENT_READ)
            return
        self._await(client, 0)
        client.due, client.busy, client.used, client.keep = None, True, True, request.keep
        self._pool.submit(self._call, client, request)

    def _call(self, client: Client, request: Request) -> None:
        """Answer a request, in a thread of the pool."""
        client.answer = wsgi.answer(cast("WSGIApplication", self.wsgi), request)
        client.send()
        self._answered.put(client)
        with suppress(BlockingIOError):  # full: it wakes the loop in any case
            os.write(self.PIPE[1], b"\0")

    def _woken(self, pipe: int) -> None:
        """Go on with the connections whose calls have been answered."""
        with suppress(BlockingIOError):
            os.read(pipe, RECEIVE)
        with suppress(Empty):
            while True:
                client = self._answered.get_nowait()
                client.busy, client.since = False, time.monotonic()
                self._go_on(client)

    def _refuse(self, client: Client, refusal: Refusal) -> None:
        log.info("a request is refused: %s", refusal)
        client.keep, client.due = False, None
        client.answer = wsgi.refusal(refusal.status, str(refusal))
        client.send()
        self._go_on(client)

    def _hang_up(self, client: Client) -> None:
        """End a connection, and let the client read the answer before it is closed."""
        with suppress(OSError):
            client.sock.shutdown(socket.SHUT_WR)
        client.due = None
        client.within(LINGER_S)
        self._await(client, selectors.EVENT_READ)
