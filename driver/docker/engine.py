"""What Docker knows: asked on its socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from driver.docker.unix_http import LIMIT_S, request
from driver.errors import Unavailable

SOCKET = Path("/var/run/docker.sock")
DRIVER = "flannel"
NAMES_LIMIT_S = 3.0  # names are shown where Docker has them: they are not worth a long wait
START_LIMIT_S = 120.0  # a volume's driver may take long, and so may an application's first steps
EXITED = quote(json.dumps({"status": ["exited"]}))
PID_FILE = Path("/var/run/docker.pid")
FAILURES = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, HTTPException)


class Container(NamedTuple):
    """A container's id and name."""

    id: str
    name: str


class Exited(NamedTuple):
    """A container that has run and does not now; `error`: why its last start failed, "" if not."""

    id: str
    name: str
    policy: str
    error: str


@dataclass(frozen=True, slots=True)
class Names:
    """What Docker calls the things that the plugin knows by id.

    `networks` has a network's name by its id, `containers` the running container by the id of each
    of its endpoints.
    """

    networks: Mapping[str, str] = field(default_factory=dict)
    containers: Mapping[str, Container] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker on this host, by its socket."""

    socket: Path = SOCKET

    def names(self) -> Names:
        """Return the names of networks and running containers; none if Docker does not answer."""
        try:
            networks = self._get("/networks", NAMES_LIMIT_S)
            running = self._get("/containers/json", NAMES_LIMIT_S)
            return Names(
                {str(network["Id"]): str(network["Name"]) for network in networks},
                {
                    str(place["EndpointID"]): Container(str(made["Id"]), _name(made))
                    for made in running
                    for place in made["NetworkSettings"]["Networks"].values()
                },
            )
        except FAILURES:
            return Names()

    def networks(self) -> frozenset[str]:
        """Return the ids of all networks; wait for a dockerd that is starting.

        Errors: Unavailable.
        """
        try:
            ids = frozenset(str(network["Id"]) for network in self._get("/networks"))
        except FAILURES as error:
            raise Unavailable(f"Docker does not list its networks: {error}") from error
        if not ids:  # it always has some of its own
            raise Unavailable("Docker does not list its networks: it names none")
        return ids

    def version(self) -> str:
        """Return Docker's version, such as "28.5.2". Errors: Unavailable."""
        try:
            return str(self._get("/version", NAMES_LIMIT_S)["Version"])
        except FAILURES as error:
            raise Unavailable(f"Docker cannot be asked on {self.socket}: {error}") from error

    def other_subnets(self) -> list[tuple[str, IPv4Network]]:
        """Return the IPv4 subnets of other drivers' networks, each with the network's name.

        Errors: Unavailable.
        """
        try:
            return [
                (str(network["Name"]), IPv4Network(part["Subnet"], strict=False))  # as it was given
                for network in self._get("/networks")
                if network["Driver"] != DRIVER
                for part in network["IPAM"]["Config"] or ()
                if "." in part.get("Subnet", "")
            ]
        except FAILURES as error:
            raise Unavailable(f"Docker cannot be asked on {self.socket}: {error}") from error

    def described(self) -> dict[str, Any]:
        """Return the networks of this driver, and their endpoints in running containers.

        Shape: the body of /Upkeep.Adopt. Errors: Unavailable.
        """
        try:
            ours = [n for n in self._get("/networks") if n["Driver"] == DRIVER]
            running = self._get("/containers/json")
            found = [self._get(f"/containers/{made['Id']}/json") for made in running]
            known = {network["Id"] for network in ours}
            places = [_place(made, place) for made in found
                      for place in made["NetworkSettings"]["Networks"].values()
                      if place["NetworkID"] in known]  # fmt: skip
        except FAILURES as error:
            raise Unavailable(f"Docker cannot be asked on {self.socket}: {error}") from error
        return {"Networks": ours, "Endpoints": places}

    def exited(self) -> list[Exited]:
        """Return the containers that have ended; wait for a dockerd that is starting.

        Errors: Unavailable.
        """
        try:
            listed = self._get(f"/containers/json?all=1&filters={EXITED}")
            found = [self._get(f"/containers/{made['Id']}/json") for made in listed]
            return [
                Exited(
                    made["Id"],
                    made["Name"].removeprefix("/"),
                    made["HostConfig"]["RestartPolicy"]["Name"],
                    made["State"]["Error"],
                )
                for made in found
            ]
        except FAILURES as error:
            raise Unavailable(f"Docker does not list its containers: {error}") from error

    def start(self, container: str) -> None:
        """Start a container, by its id; one that runs is left alone. Errors: Unavailable."""
        try:
            what = f"/containers/{container}/start"
            status, told = request(self.socket, "POST", what, limit_s=START_LIMIT_S)
        except FAILURES as error:
            raise Unavailable(str(error)) from error
        if status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            raise Unavailable(told["message"] if isinstance(told, dict) else str(status))

    def _get(self, what: str, limit_s: float = LIMIT_S) -> Any:
        status, found = request(self.socket, "GET", what, limit_s=limit_s)
        if status != HTTPStatus.OK:
            raise ValueError(f"it answers {status}")
        return found


def dockerd() -> int:
    """Return the process id of the running dockerd, 0 if there is none.

    Its socket is not used: with socket activation, that would start a stopped one.
    """
    try:
        number = int(PID_FILE.read_text())
        name = Path(f"/proc/{number}/comm").read_text().strip()
    except (OSError, ValueError):
        return 0
    return number if name == "dockerd" else 0


def _name(made: dict[str, Any]) -> str:
    """Return a container's own name: with `--link`, it has others with another container's first.

    A container that is being removed may have none: then the beginning of its id.
    """
    own = (name for name in made["Names"] or () if name.count("/") == 1)
    return str(next(own, made["Id"][:12])).removeprefix("/")


def _place(container: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    return {
        "EndpointID": place["EndpointID"],
        "Address": f"{place['IPAddress']}/{place['IPPrefixLen']}" if place["IPAddress"] else "",
        "MacAddress": place["MacAddress"],
        "Gateway": place["Gateway"],
        "Sandbox": container["NetworkSettings"]["SandboxKey"],
    }
