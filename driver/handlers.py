"""Docker's two APIs over HTTP: the calls, and the answers to failures.

`standin.STATIC` has the replies that need no state, `CALLS` all other calls.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException

from driver.api import admin, adopt, endpoints, networks, pools, ports, status
from driver.api.body import Body, Reply
from driver.core.reconciler import Reconciler
from driver.docker.naming import KnownNames
from driver.errors import BadRequest, FlannelError, NoLease
from driver.model.facts import Facts
from driver.model.records import State
from driver.standin import STATIC

log = logging.getLogger(__name__)

Call = Callable[[Reconciler, Body], Reply]

CALLS: dict[str, Call] = {
    "NetworkDriver.AllocateNetwork": networks.swarm_only,
    "NetworkDriver.FreeNetwork": networks.swarm_only,
    "NetworkDriver.CreateNetwork": networks.create_network,
    "NetworkDriver.DeleteNetwork": networks.delete_network,
    "NetworkDriver.CreateEndpoint": endpoints.create_endpoint,
    "NetworkDriver.DeleteEndpoint": endpoints.delete_endpoint,
    "NetworkDriver.Join": endpoints.join,
    "NetworkDriver.Leave": endpoints.revoke,  # the veth goes with DeleteEndpoint
    "NetworkDriver.ProgramExternalConnectivity": endpoints.program,
    "NetworkDriver.RevokeExternalConnectivity": endpoints.revoke,
    "IpamDriver.RequestPool": pools.request_pool,
    "IpamDriver.ReleasePool": pools.release_pool,
    "IpamDriver.RequestAddress": pools.request_address,
    "IpamDriver.ReleaseAddress": pools.release_address,
    # from our own command line, not from Docker
    "Upkeep.Forget": admin.forget,
    "Upkeep.Adopt": adopt.adopt,
}
BRING_NAMES = {"NetworkDriver.CreateNetwork", "NetworkDriver.Join"}  # of networks, of containers


def create_app(
    core: Reconciler,
    *,
    require_ipam: bool = False,
    problems: Callable[[], Iterable[str]] = tuple,
    warnings: Callable[[Facts], Iterable[str]] = lambda _facts: (),
    settings: Callable[[State], Reply] = lambda _state: {},
    names: KnownNames | None = None,
) -> Flask:
    """Return the WSGI application.

    `require_ipam`: refuse networks that Docker's own IPAM put outside the lease. `problems` and
    `warnings` return what the status shows beside the core's own, `settings` which are in
    force. `names` go into failures.
    """
    names = names or KnownNames()
    app = Flask("docker-flannel")
    calls = CALLS | {
        "NetworkDriver.CreateNetwork": partial(networks.create_network, require_ipam=require_ipam),
        "Upkeep.Adopt": partial(adopt.adopt, require_ipam=require_ipam),
    }

    @app.post("/<method>")
    def call(method: str) -> Response:
        began, body = time.perf_counter(), request.get_data()
        try:
            if method in STATIC:
                _react(core, method, body)
                return jsonify(STATIC[method])
            if method not in calls:
                abort(404)
            reply = jsonify(calls[method](core, Body.decode(body)))
            if method in BRING_NAMES:
                names.outdate()
            return reply
        finally:
            spent = (time.perf_counter() - began) * 1000
            log.debug("call=%s ms=%.3f body=%s", method, spent, body)

    @app.get("/status")
    def show_status() -> Response:
        return jsonify(status.document(core, problems(), warnings(core.facts)))

    @app.get("/settings")
    def show_settings() -> Response:
        return jsonify(settings(core.state))

    @app.get("/ports")
    def show_ports() -> Response:
        return jsonify(ports.document(core))

    _answer_failures(app, core, names)
    return app


def _react(core: Reconciler, method: str, body: bytes) -> None:
    """React to a call whose answer is always the same."""
    if method == "Plugin.Activate":
        core.wake()  # dockerd may have started and reset its firewall
    elif method == "NetworkDriver.GetCapabilities":
        core.docker_restarted()
    elif method == "NetworkDriver.EndpointOperInfo":
        with suppress(BadRequest):
            endpoints.populated(core, Body.decode(body))


def _answer_failures(app: Flask, core: Reconciler, names: KnownNames) -> None:
    @app.errorhandler(FlannelError)
    def refused(error: FlannelError) -> tuple[Response, int]:
        words = names(_explained(error, core) if isinstance(error, NoLease) else str(error))
        log.info("call=%s refused: %s", request.path[1:], words)
        return _failure(words), error.status

    @app.errorhandler(HTTPException)
    def bad_http(error: HTTPException) -> tuple[Response, int]:
        return _failure(f"{request.method} {request.path[:80]}: {error.name}"), error.code or 500

    @app.errorhandler(Exception)
    def broken(error: Exception) -> tuple[Response, int]:
        mark = secrets.token_hex(2)
        log.error("call=%s internal error %s", request.path[1:], mark, exc_info=error)
        where = "`journalctl -u docker-flannel`, or Docker's log if it is a managed plugin"
        return _failure(f"internal error {mark}; please report what the log says: {where}"), 500


def _explained(error: NoLease, core: Reconciler) -> str:
    """Return why there is no lease, as far as its source knows."""
    lease = core.lease_status
    why = lease.problems[0] if lease.problems else "`docker-flannel status` says more"
    return lease.refusal or f"{error}: {why}"


def _failure(message: str) -> Response:
    """Return the body: Docker's network API reads `Err`, its IPAM API sometimes `Error`."""
    return jsonify({"Err": message, "Error": message})
