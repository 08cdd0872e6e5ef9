"""The two APIs over HTTP: every call Docker can make, and how failures are answered.

`standby.STATIC` are the replies that need no state, `CALLS` the rest; together they are the whole
API. The only user of flask.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException

from driver import adopting, endpoint_calls, ipam_calls, network_calls, port_list, upkeep
from driver.errors import BadRequest, FlannelError, NoLease
from driver.reconcile import Reconciler
from driver.standby import STATIC
from driver.status import document
from driver.wire import Body, Reply

log = logging.getLogger(__name__)

Call = Callable[[Reconciler, Body], Reply]

CALLS: dict[str, Call] = {
    "NetworkDriver.AllocateNetwork": network_calls.swarm_only,
    "NetworkDriver.FreeNetwork": network_calls.swarm_only,
    "NetworkDriver.CreateNetwork": network_calls.create_network,
    "NetworkDriver.DeleteNetwork": network_calls.delete_network,
    "NetworkDriver.CreateEndpoint": endpoint_calls.create_endpoint,
    "NetworkDriver.DeleteEndpoint": endpoint_calls.delete_endpoint,
    "NetworkDriver.Join": endpoint_calls.join,
    "NetworkDriver.Leave": endpoint_calls.leave,
    "NetworkDriver.ProgramExternalConnectivity": endpoint_calls.program,
    "NetworkDriver.RevokeExternalConnectivity": endpoint_calls.revoke,
    "IpamDriver.RequestPool": ipam_calls.request_pool,
    "IpamDriver.ReleasePool": ipam_calls.release_pool,
    "IpamDriver.RequestAddress": ipam_calls.request_address,
    "IpamDriver.ReleaseAddress": ipam_calls.release_address,
    # our own command line's, not Docker's
    "Upkeep.Forget": upkeep.forget,
    "Upkeep.Adopt": adopting.adopt,
}


def create_app(core: Reconciler) -> Flask:
    """Return the WSGI application."""
    app = Flask("docker-flannel")

    @app.post("/<method>")
    def call(method: str) -> Response:
        began, body = time.perf_counter(), request.get_data()
        try:
            if method in STATIC:
                _heed(core, method, body)
                return jsonify(STATIC[method])
            if method not in CALLS:
                abort(404)
            return jsonify(CALLS[method](core, Body.decode(body)))
        finally:
            spent = (time.perf_counter() - began) * 1000
            log.debug("call=%s ms=%.3f body=%s", method, spent, body)

    _answer_questions(app, core)
    _answer_failures(app, core)
    return app


def _answer_questions(app: Flask, core: Reconciler) -> None:
    """Answer what the command line asks."""

    @app.get("/status")
    def status() -> Response:
        return jsonify(document(core))

    @app.get("/ports")
    def ports() -> Response:
        return jsonify(port_list.document(core))


def _heed(core: Reconciler, method: str, body: bytes) -> None:
    """Take a hint from a call that is answered the same in any case."""
    if method == "Plugin.Activate":
        core.wake()  # dockerd may just have started, and made its firewall anew
    elif method == "NetworkDriver.GetCapabilities":
        core.inherit()  # a dockerd that starts goes on with nothing that another one had begun
    elif method == "NetworkDriver.EndpointOperInfo":
        with suppress(BadRequest):
            endpoint_calls.populated(core, Body.decode(body))


def _answer_failures(app: Flask, core: Reconciler) -> None:
    @app.errorhandler(FlannelError)
    def refused(error: FlannelError) -> tuple[Response, int]:
        words = _explained(error, core) if isinstance(error, NoLease) else str(error)
        log.info("call=%s refused: %s", request.path[1:], words)
        return _failure(words), error.status

    @app.errorhandler(HTTPException)
    def bad_http(error: HTTPException) -> tuple[Response, int]:
        return _failure(f"{request.method} {request.path[:80]}: {error.name}"), error.code or 500

    @app.errorhandler(Exception)
    def broken(error: Exception) -> tuple[Response, int]:
        mark = secrets.token_hex(2)
        log.error("call=%s internal error %s", request.path[1:], mark, exc_info=error)
        return _failure(f"internal error {mark}; the log of docker-flannel has more"), 500


def _explained(error: NoLease, core: Reconciler) -> str:
    """Say what is the matter with the lease and why, as far as that is known."""
    standing = core.standing
    why = standing.problems[0] if standing.problems else "`docker-flannel status` says more"
    return standing.refusal or f"{error}: {why}"


def _failure(message: str) -> Response:
    """Word a failure: the network API reads `Err`, the IPAM API at times `Error`."""
    return jsonify({"Err": message, "Error": message})
