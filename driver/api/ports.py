"""What `docker flannel ports` shows: what this host really has of its published ports. Pure.

Docker cannot show the ports of a remote driver, and never learns which one was chosen from a range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from driver.core.firewall import plan_ports
from driver.core.reconciler import Reconciler
from driver.model.objects import Element, HostObject, PortSocket
from driver.model.records import Endpoint, PortMapping, replace, short

Document = dict[str, Any]


def document(core: Reconciler) -> Document:
    """Give every port that a container was promised, and what the host has of it.

    Shape: {ports: [{proto, host_ip, host_port, container_ip, container_port, endpoint, network,
    sandbox, published, held}]}; `published`: the firewall leads it to the container; `held`: a
    socket of ours keeps the host port from other programs.
    Errors: HostError.
    """
    have = core.dataplane.observe()
    core.wake()  # a look hides from the passes that the firewall was disturbed
    return {
        "ports": [
            _port(endpoint, mapping, have)
            for endpoint in core.state.endpoints.values()
            for mapping in endpoint.ports
        ]
    }


def _port(endpoint: Endpoint, mapping: PortMapping, have: frozenset[HostObject]) -> Document:
    objects = list(plan_ports(replace(endpoint, ports=(mapping,))))
    return {
        "proto": mapping.proto,
        "host_ip": str(mapping.host_ip),
        "host_port": mapping.host_port,
        "container_ip": str(endpoint.shown_ip.ip),
        "container_port": mapping.port,
        "endpoint": endpoint.id,
        "network": endpoint.network,
        "sandbox": endpoint.sandbox,
        "published": any(t in have for t in objects if isinstance(t, Element)),
        "held": any(t in have for t in objects if isinstance(t, PortSocket)),
    }


def name(doc: Document, containers: Iterable[Document]) -> None:
    """Add to each port the id and name of its container, None where Docker knows of none.

    Shape: `containers` as Docker's GET /containers/json gives them.
    """
    found = {
        network["EndpointID"]: (made["Id"], made["Names"][0].removeprefix("/"))
        for made in containers
        for network in made["NetworkSettings"]["Networks"].values()
    }
    for port in doc["ports"]:
        port["container"], port["name"] = found.get(port["endpoint"], (None, None))


def of(doc: Document, what: str) -> list[Document]:
    """Choose the ports of a container: by name or by the beginning of an id, also an endpoint's."""
    return [port for port in doc["ports"] if what in _names(port)] or [
        port
        for port in doc["ports"]
        if any((port[kind] or "").startswith(what) for kind in ("container", "endpoint"))
    ]


def _names(port: Document) -> Iterator[str]:
    yield from (port["name"], port["container"], port["endpoint"], port["sandbox"])


def render(ports: Iterable[Document]) -> str:
    """Word ports for a person, a line each."""
    rows = [_row(port) for port in sorted(ports, key=_order)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _order(port: Document) -> tuple[str, int, str]:
    return port["host_ip"], port["host_port"], port["proto"]


def _row(port: Document) -> tuple[str, ...]:
    problems = [] if port["published"] else ["not published: the firewall lacks it"]
    if not port["held"]:
        problems.append("not held: another program may have the host port")
    return (
        "{host_ip}:{host_port}->{container_ip}:{container_port}/{proto}".format(**port),
        port["name"] or "",
        f"endpoint {short(port['endpoint'])}",
        "; ".join(problems),
    )
