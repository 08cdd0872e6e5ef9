"""What `docker flannel ps` shows: each endpoint with its addresses, from the status document. Pure.

Docker tells a driver no names of networks or containers, only ids: the endpoint's is in
`docker inspect`, and the sandbox is the beginning of its SandboxID.
"""

from __future__ import annotations

from typing import Any

from driver.model import short

HEADS = ("NETWORK", "BRIDGE", "ENDPOINT", "SANDBOX", "DOCKER'S ADDRESS", "LEASE ADDRESS")


def rows(status: dict[str, Any]) -> list[dict[str, str]]:
    """Give an entry for each endpoint, by network and lease address.

    Shape: {network, bridge, endpoint, sandbox, docker_address, lease_address}; ids in full, but
    for `sandbox`, "" before a container has one.
    """
    bridges = {network["id"]: network["bridge"] for network in status["networks"]}
    return [
        {
            "network": found["network"],
            "bridge": bridges[found["network"]],
            "endpoint": found["id"],
            "sandbox": (found["sandbox"] or "").rpartition("/")[2],
            "docker_address": found["docker_address"],
            "lease_address": found["address"],
        }
        for found in sorted(status["endpoints"], key=lambda e: (e["network"], e["address"]))
    ]


def render(found: list[dict[str, str]]) -> str:
    """Word the entries for a person, as a table."""
    table = [HEADS]
    for row in found:
        ids = short(row["network"]), row["bridge"], short(row["endpoint"]), row["sandbox"]
        table.append((*ids, row["docker_address"], row["lease_address"]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)
    return "\n".join(lines) + "\n"
