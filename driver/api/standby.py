"""Answer every call with what is wrong, as long as the plugin cannot work.

Docker loads a driver only once, and waits 15 s for one that is missing. So the sockets are served
whatever is wrong at the start, which is tried again until it succeeds. No library is imported here:
a missing one may be what is wrong.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from driver.api.body import SPACE, Reply
from driver.errors import BadRequest, FlannelError

log = logging.getLogger(__name__)

RETRY_S = 2.0
STATIC: dict[str, Reply] = {
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


class Standby:
    """A WSGI application that hands over to another one as soon as `make` succeeds."""

    def __init__(self, make: Callable[[], WSGIApplication], retry_s: float = RETRY_S) -> None:
        """Try to make it. After a failure a thread tries again, unless a setting is bad."""
        self._make, self._retry_s = make, retry_s
        self._application: WSGIApplication = self._explain
        self._fault = FlannelError("docker-flannel is starting")
        if not self._try() and not isinstance(self._fault, BadRequest):
            threading.Thread(target=self._keep_trying, name="standby", daemon=True).start()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        return self._application(environ, start)

    def _keep_trying(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._retry_s)
            if self._try():
                log.info("the failure is gone: Docker is served")
                return

    def _try(self) -> bool:
        try:
            self._application = self._make()
        except FlannelError as error:
            self._report(error)
        except Exception as error:  # calls must be answered, whatever it is
            log.debug("a start failed", exc_info=error)
            self._report(FlannelError(f"docker-flannel cannot start: {_worded(error)}"))
        else:
            return True
        return False

    def _report(self, fault: FlannelError) -> None:
        if str(fault) != str(self._fault):
            log.error("%s", fault)
        self._fault = fault

    def _explain(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        method, fault = environ["PATH_INFO"][1:], self._fault
        if environ["REQUEST_METHOD"] == "POST" and method in STATIC:
            status, reply = "200 OK", STATIC[method]
        else:
            status = f"{fault.status} Unusable"
            reply = dict.fromkeys(("Err", "Error"), str(fault))
        body = json.dumps(reply).encode()
        start(status, [("Content-Type", "application/json")])
        return [body]


def _worded(error: Exception) -> str:
    """Return a sentence on an unforeseen failure, such as a missing library."""
    text = " ".join(str(error).split())
    if isinstance(error, ImportError | OSError):
        return f"{text}; install or repair what is missing, it is tried again every few seconds"
    return f"{type(error).__name__} {text}; it is tried again every few seconds"
