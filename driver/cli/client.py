"""Ask the plugin and Docker on their sockets."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from driver.config import Config
from driver.errors import Unavailable

LIMIT_S = 10.0
NAME = "flannel"  # of the driver
DOCKER = Path("/var/run/docker.sock")
DOCKER_PID = Path("/var/run/docker.pid")
# by endpoint id: Docker's name of the network, and the container's id and name
Containers = dict[str, tuple[str, str, str]]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=LIMIT_S)
        self._path = path

    def connect(self) -> None:
        """Open the connection."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(str(self._path))


def ask(config: Config, method: str, what: str, body: object = None) -> dict[str, Any]:
    """Send a request to the plugin, with `body` as JSON; return the JSON object of its answer.

    Errors: Unavailable with what to do, or with the plugin's own error.
    """
    path = config.sockets[0]
    try:
        status, fields = _request(path, method, what, body)
        if not isinstance(fields, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unavailable(
            f"docker-flannel does not answer on {path} ({str(error).strip()}); start it with "
            "`systemctl start docker-flannel` or `docker-flannel serve`"
        ) from error
    if status != http.HTTPStatus.OK:
        raise Unavailable(fields.get("Err") or f"another program answers on {path}: {status}")
    return fields


def containers() -> Containers:
    """Return Docker's running containers; none if Docker does not answer."""
    try:
        status, found = _request(DOCKER, "GET", "/containers/json")
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    if status != http.HTTPStatus.OK or not isinstance(found, list):
        return {}
    return {
        place["EndpointID"]: (network, made["Id"], made["Names"][0].removeprefix("/"))
        for made in found
        for network, place in made["NetworkSettings"]["Networks"].items()
    }


def networks() -> frozenset[str]:
    """Return the ids of all of Docker's networks; wait for a dockerd that is starting.

    Errors: Unavailable.
    """
    try:
        status, found = _request(DOCKER, "GET", "/networks")
        ids = frozenset(str(network["Id"]) for network in found)
    except (OSError, ValueError, TypeError, KeyError, http.client.HTTPException) as error:
        raise Unavailable(f"Docker does not list its networks: {error}") from error
    if status != http.HTTPStatus.OK or not ids:  # it always has some of its own
        raise Unavailable(f"Docker does not list its networks: {status}")
    return ids


def dockerd() -> int:
    """Return the process id of the running dockerd, 0 if there is none.

    Its socket is not used: with socket activation, that would start a stopped one.
    """
    try:
        number = int(DOCKER_PID.read_text())
        name = Path(f"/proc/{number}/comm").read_text().strip()
    except (OSError, ValueError):
        return 0
    return number if name == "dockerd" else 0


def described() -> dict[str, Any]:
    """Return Docker's networks of this driver, and their endpoints in running containers.

    Shape: the body of /Upkeep.Adopt. Errors: Unavailable.
    """
    try:
        _, networks = _request(DOCKER, "GET", "/networks")
        ours = [network for network in networks if network["Driver"] == NAME]
        _, running = _request(DOCKER, "GET", "/containers/json")
        found = [_request(DOCKER, "GET", f"/containers/{made['Id']}/json")[1] for made in running]
        known = {network["Id"] for network in ours}
        places = [_place(made, place) for made in found
                  for place in made["NetworkSettings"]["Networks"].values()
                  if place["NetworkID"] in known]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        raise Unavailable(f"Docker cannot be asked on {DOCKER}: {error}") from error
    return {"Networks": ours, "Endpoints": places}


def _place(container: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    return {
        "EndpointID": place["EndpointID"],
        "Address": f"{place['IPAddress']}/{place['IPPrefixLen']}" if place["IPAddress"] else "",
        "MacAddress": place["MacAddress"],
        "Gateway": place["Gateway"],
        "Sandbox": container["NetworkSettings"]["SandboxKey"],
    }


def _request(path: Path, method: str, what: str, body: object = None) -> tuple[int, Any]:
    connection = UnixConnection(path)
    try:
        connection.request(method, what, None if body is None else json.dumps(body))
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()
