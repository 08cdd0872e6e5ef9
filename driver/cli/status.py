"""Show lease, networks, endpoints, ports, problems."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress

from driver.cli import client
from driver.cli.output import Document, add_format, show, to_table
from driver.cli.program import Program
from driver.docker.engine import Names
from driver.docker.naming import named
from driver.errors import BadRequest
from driver.model.records import short
from driver.text import visible

SETTINGS = ("--socket",)
SHOWN_PEERS = 20
SHOWN_REPAIRS = 5
PEERS = ("peer", "public_ip", "mac")
NETWORKS = ("network", "block", "gateway", "used", "mtu", "bridge", "note")
ENDPOINTS = ("endpoint", "container", "network", "docker_address", "lease_address", "ports")

arguments = add_format


def run(program: Program, args: Namespace) -> None:
    """Ask the plugin and Docker, and print what they know."""
    status = client.ask(program.socket, "GET", "/status")
    names = Names()
    with suppress(BadRequest):  # DOCKER_HOST may lead to another host
        names = program.docker.names()
    show(add_names(status, names), args.format, render)


def add_names(doc: Document, names: Names) -> Document:
    """Return the status with Docker's names.

    Shape: as from the plugin; in addition, each network has its `name`, and each endpoint the id
    `container`, its `name` and `network_name`, None if Docker knows none. In sentences, names are
    behind the ids.
    """
    networks = [{**n, "name": names.networks.get(n["id"])} for n in doc["networks"]]
    endpoints = []
    for endpoint in doc["endpoints"]:
        container, name = names.containers.get(endpoint["id"], (None, None))
        network_name = names.networks.get(endpoint["network"])
        more = {"container": container, "name": name, "network_name": network_name}
        endpoints.append({**endpoint, **more})
    sentences = {kind: [named(s, names) for s in doc[kind]] for kind in ("warnings", "problems")}
    return {**doc, "networks": networks, "endpoints": endpoints, **sentences}


def render(doc: Document) -> str:
    """Return a summary, and below it a table for each list that is not empty."""
    lists: list[tuple[tuple[str, ...], list[Document]]] = [
        (PEERS, list(_peers(doc["peers"])) if doc["overlay"] else []),
        (NETWORKS, list(_networks(doc))),
        (ENDPOINTS, list(map(_endpoint, doc["endpoints"]))),
        (("repaired_at", "what"), list(map(_repair, doc["repaired"][-SHOWN_REPAIRS:]))),
        (("warning",), [{"warning": sentence} for sentence in doc["warnings"]]),
        (("problem",), [{"problem": sentence} for sentence in doc["problems"]]),
    ]
    summary = "".join(f"{name:9}  {visible(str(value))}\n" for name, value in _summary(doc))
    return "\n".join([summary, *(to_table(columns, rows) for columns, rows in lists if rows)])


def _summary(doc: Document) -> Iterator[tuple[str, object]]:
    lease = (
        "{subnet} of {network}, from {source}, MTU {mtu}, {free_addresses} addresses in no block"
    )
    yield "lease", lease.format(**doc["lease"]) if doc["lease"] else "none yet"
    yield "phase", ": ".join(filter(None, (doc["phase"], doc["note"])))
    if doc["overlay"]:
        overlay = "{backend}, VNI {vni}, public IP {public_ip}, MAC {mac}"
        yield "overlay", overlay.format(**doc["overlay"])
        yield "peers", len(doc["peers"])
    yield "firewall", doc["firewall"]
    yield "networks", len(doc["networks"])
    yield "endpoints", len(doc["endpoints"])
    yield "repaired", len(doc["repaired"]) or "nothing"
    if doc["warnings"]:
        yield "warnings", len(doc["warnings"])
    yield "problems", len(doc["problems"]) or "none"


def _peers(peers: list[Document]) -> Iterator[Document]:
    for peer in peers[:SHOWN_PEERS]:
        yield {**peer, "peer": peer["subnet"]}
    if len(peers) > SHOWN_PEERS:
        yield {"peer": f"and {len(peers) - SHOWN_PEERS} more"}


def _networks(doc: Document) -> Iterator[Document]:
    for network in doc["networks"]:
        gateway = network["docker_gateway"].partition("/")[0]
        notes = ["internal"] * network["internal"]
        notes += [f"Docker's gateway {gateway}"] * (gateway != network["gateway"])
        used = "{used} of {usable}".format(**network)
        name = network["name"] or short(network["id"])
        yield {**network, "network": name, "used": used, "note": ", ".join(notes)}
    for block in doc["blocks_of_others"]:
        yield {"block": block, "note": "of another driver"}


def _endpoint(endpoint: Document) -> Document:
    return {
        **endpoint,
        "endpoint": short(endpoint["id"]),
        "container": endpoint["name"],
        "network": endpoint["network_name"] or short(endpoint["network"]),
        "lease_address": endpoint["address"],
        "ports": ", ".join(endpoint["ports"]),
    }


def _repair(repair: Document) -> Document:
    return {**repair, "repaired_at": time.strftime("%F %T", time.localtime(repair["at"]))}
