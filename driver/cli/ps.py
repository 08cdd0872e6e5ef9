"""`docker flannel ps`: each container's endpoints with their addresses.

Docker tells a driver ids only; names come from Docker itself, where it can be asked. Elsewhere the
endpoint's id is in `docker inspect`, and the sandbox is the beginning of its SandboxID.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import Any

from driver.cli import client
from driver.cli.output import add_format, show, to_table
from driver.cli.program import Program
from driver.cli.settings import add_settings
from driver.model.records import short

HELP = "list containers with Docker's and lease address"
Document = dict[str, Any]
HEADS = (
    "NETWORK",
    "BRIDGE",
    "CONTAINER",
    "ENDPOINT",
    "SANDBOX",
    "DOCKER'S ADDRESS",
    "LEASE ADDRESS",
)


def arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_settings(parser, "--socket")
    add_format(parser)


def run(program: Program, args: Namespace) -> None:
    """Ask the plugin and Docker, and print what they know."""
    found = rows(client.ask(program.config, "GET", "/status"), client.containers())
    show(found, args.format, render)


def rows(status: Document, containers: Iterable[Document]) -> list[Document]:
    """Return an entry for each endpoint, by network and lease address.

    Shape: {network, network_name, bridge, container, name, endpoint, sandbox, docker_address,
    lease_address}; ids in full but for `sandbox`; what is not known is None. `containers` as
    Docker's GET /containers/json has them.
    """
    known = client.names(containers)
    bridges = {network["id"]: network["bridge"] for network in status["networks"]}
    found = []
    for endpoint in sorted(status["endpoints"], key=lambda e: (e["network"], e["address"])):
        network_name, container, name = known.get(endpoint["id"], (None, None, None))
        found.append(
            {
                "network": endpoint["network"],
                "network_name": network_name,
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
    return to_table(
        HEADS,
        (
            (
                row["network_name"] or short(row["network"]),
                row["bridge"],
                row["name"],
                short(row["endpoint"]),
                row["sandbox"],
                row["docker_address"],
                row["lease_address"],
            )
            for row in found
        ),
    )
