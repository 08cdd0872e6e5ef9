"""What `docker flannel ps` shows: each endpoint with its addresses, from the status document. Pure.

Docker tells a driver ids only; names come from Docker itself, where it can be asked. Elsewhere the
endpoint's id is in `docker inspect`, and the sandbox is the beginning of its SandboxID.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from driver.model.records import short

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


def rows(status: Document, containers: Iterable[Document]) -> list[Document]:
    """Give an entry for each endpoint, by network and lease address.

    Shape: {network, network_name, bridge, container, name, endpoint, sandbox, docker_address,
    lease_address}; ids in full but for `sandbox`; what is not known is None. `containers` as
    Docker's GET /containers/json gives them.
    """
    known = {
        network["EndpointID"]: (name, made["Id"], made["Names"][0].removeprefix("/"))
        for made in containers
        for name, network in made["NetworkSettings"]["Networks"].items()
    }
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
    """Word the entries for a person, as a table; "-" for what is not known."""
    table = [HEADS]
    for row in found:
        network, name = row["network_name"] or short(row["network"]), row["name"] or "-"
        ids = short(row["endpoint"]), row["sandbox"] or "-"
        addresses = row["docker_address"], row["lease_address"]
        table.append((network, row["bridge"], name, *ids, *addresses))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)
    return "\n".join(lines) + "\n"
