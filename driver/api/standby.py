"""Answer every call with what is wrong, as long as the plugin cannot work.

Docker waits for an answer without end. So the sockets are served whatever is wrong or slow at the
start, which is tried again until it succeeds. No library is imported here: a missing one may be
what is wrong. While no docker-flannel runs, `driver.standin` answers.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from driver.errors import BadRequest, FlannelError
from driver.standin import AWAY, STATIC

log = logging.getLogger(__name__)

RETRY_S = 2.0
PATIENCE_S = 10.0  # Docker's calls wait in the queue of the socket meanwhile


class Standby:
    """A WSGI application that hands over to another one as soon as `make` succeeds."""

    def __init__(
        self,
        make: Callable[[], WSGIApplication],
        retry_s: float = RETRY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Have a thread make it, and wait for that for a while.

        After a failure it tries again, unless a setting is bad.
        """
        self._make, self._retry_s = make, retry_s
        self._application: WSGIApplication = self._explain
        self._fault = FlannelError("it is starting")
        self._tried = threading.Event()
        threading.Thread(target=self._keep_trying, name="standby", daemon=True).start()
        self._tried.wait(patience_s)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        return self._application(environ, start)

    def _keep_trying(self) -> None:
        while not self._try():
            self._tried.set()
            if isinstance(self._fault, BadRequest):
                return
            time.sleep(self._retry_s)
        if self._tried.is_set():
            log.info("the failure is gone: Docker is served")
        self._tried.set()

    def _try(self) -> bool:
        try:
            self._application = self._make()
        except FlannelError as error:
            self._report(error)
        except Exception as error:  # calls must be answered, whatever it is
            log.debug("a start failed", exc_info=error)
            self._report(FlannelError(_worded(error)))
        else:
            return True
        return False

    def _report(self, fault: FlannelError) -> None:
        if str(fault) != str(self._fault):
            log.error("%s: %s", AWAY, fault)
        self._fault = fault

    def _explain(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        method, fault = environ["PATH_INFO"][1:], self._fault
        if environ["REQUEST_METHOD"] == "POST" and method in STATIC:
            status, reply = "200 OK", STATIC[method]
        else:
            status = f"{fault.status} Unusable"
            reply = dict.fromkeys(("Err", "Error"), f"{AWAY}: {fault}")
        body = json.dumps(reply).encode()
        start(status, [("Content-Type", "application/json")])
        return [body]


def _worded(error: Exception) -> str:
    """Return a sentence on an unforeseen failure, such as a missing library."""
    text = " ".join(str(error).split())
    if isinstance(error, ImportError | OSError):
        return f"{text}; install or repair what is missing, it is tried again every few seconds"
    return f"{type(error).__name__} {text}; it is tried again every few seconds"
