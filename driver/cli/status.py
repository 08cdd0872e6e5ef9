"""`docker flannel status`: what the plugin on this host has and does."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from driver.cli import client
from driver.cli.output import add_format, show, to_table
from driver.cli.program import Program
from driver.cli.settings import add_settings
from driver.model.records import short

HELP = "show lease, networks, endpoints, ports, problems"
SHOWN_PEERS = 20
SHOWN_REPAIRS = 5
NETWORK = ("NETWORK", "BLOCK", "GATEWAY", "USED", "MTU", "BRIDGE", "")
ENDPOINT = ("ENDPOINT", "NETWORK", "DOCKER'S ADDRESS", "LEASE ADDRESS", "PORTS")
Document = dict[str, Any]


def arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_settings(parser, "--socket")
    add_format(parser)


def run(program: Program, args: Namespace) -> None:
    """Ask the plugin and print its answer."""
    found = client.ask(program.config, "GET", "/status")
    show(found, args.format, render)


def render(doc: Document) -> str:
    """Return a summary, and below it a table for each list that is not empty."""
    tables = [to_table((), _summary(doc))]
    tables += [to_table(heads, rows) for heads, rows in _lists(doc) if rows]
    return "\n".join(tables)


def _summary(doc: Document) -> Iterator[tuple[str, object]]:
    lease = (
        "{subnet} of {network}, from {source}, MTU {mtu}, {free_addresses} addresses not in any "
        "block"
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


def _lists(doc: Document) -> Iterator[tuple[tuple[str, ...], list[tuple[object, ...]]]]:
    if doc["overlay"]:
        peers = [(p["subnet"], p["public_ip"], p["mac"]) for p in doc["peers"]]
        more = [(f"and {len(peers) - SHOWN_PEERS} more", "", "")] * (len(peers) > SHOWN_PEERS)
        yield ("PEER", "PUBLIC IP", "MAC"), [*peers[:SHOWN_PEERS], *more]
    yield (
        NETWORK,
        [
            *map(_network, doc["networks"]),
            *((None, block, *[None] * 4, "another driver's") for block in doc["blocks_of_others"]),
        ],
    )
    yield ENDPOINT, list(map(_endpoint, doc["endpoints"]))
    yield (
        ("REPAIRED AT", "WHAT"),
        [
            (time.strftime("%F %T", time.localtime(repair["at"])), repair["what"])
            for repair in doc["repaired"][-SHOWN_REPAIRS:]
        ],
    )
    yield ("WARNING",), [(sentence,) for sentence in doc["warnings"]]
    yield ("PROBLEM",), [(sentence,) for sentence in doc["problems"]]


def _network(network: Document) -> tuple[object, ...]:
    gateway = network["docker_gateway"].partition("/")[0]
    notes = ["internal"] * network["internal"]
    notes += [f"Docker's gateway {gateway}"] * (gateway != network["gateway"])
    return (
        short(network["id"]),
        network["block"],
        network["gateway"],
        "{used} of {usable}".format(**network),
        network["mtu"],
        network["bridge"],
        ", ".join(notes),
    )


def _endpoint(endpoint: Document) -> tuple[object, ...]:
    return (
        short(endpoint["id"]),
        short(endpoint["network"]),
        endpoint["docker_address"],
        endpoint["address"],
        ", ".join(endpoint["ports"]),
    )
