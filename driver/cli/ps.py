"""List containers with Docker's address and the lease address.

A driver learns only ids; names come from Docker's API, if it answers. Otherwise `docker inspect`
shows the endpoint's id, and a SandboxID that begins with the sandbox.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from driver.cli import client
from driver.cli.output import Document, add_format, show, to_table
from driver.cli.program import Program
from driver.docker.engine import Names
from driver.model.records import short

SETTINGS = ("--socket",)
COLUMNS = (
    *("network", "bridge", "container", "endpoint", "sandbox"),
    *("docker_address", "lease_address"),
)

arguments = add_format


def run(program: Program, args: Namespace) -> None:
    """Ask the plugin and Docker, and print what they know."""
    status = client.ask(program.socket, "GET", "/status")
    show(rows(status, program.docker.names()), args.format, render)


def rows(status: Document, names: Names) -> list[Document]:
    """Return an entry for each endpoint, sorted by network and lease address.

    Shape: {network, network_name, bridge, container, name, endpoint, sandbox, docker_address,
    lease_address}; ids are complete except `sandbox`; None for what is unknown.
    """
    bridges = {network["id"]: network["bridge"] for network in status["networks"]}
    found = []
    for endpoint in sorted(status["endpoints"], key=lambda e: (e["network"], e["address"])):
        container, name = names.containers.get(endpoint["id"], (None, None))
        found.append(
            {
                "network": endpoint["network"],
                "network_name": names.networks.get(endpoint["network"]),
                "bridge": bridges[endpoint["network"]],
                "container": container,
                "name": name,
                "endpoint": endpoint["id"],
                "sandbox": (endpoint["sandbox"] or "").rpartition("/")[2] or None,
                "docker_address": endpoint["docker_address"],
                "lease_address": endpoint["address"],
            }
        )
    return found


def render(found: Iterable[Document]) -> str:
    """Return the entries as a table."""
    return to_table(COLUMNS, map(_row, found))


def _row(row: Document) -> Document:
    network = row["network_name"] or short(row["network"])
    return {**row, "network": network, "container": row["name"], "endpoint": short(row["endpoint"])}
