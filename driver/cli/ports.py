"""List the published ports, as this host has them.

Docker cannot show a remote driver's ports, and never learns which one was chosen from a range.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from driver.cli import client
from driver.cli.output import Document, add_format, show, to_table
from driver.cli.program import Program
from driver.docker.engine import Names
from driver.errors import UnknownObject
from driver.model.records import short

SETTINGS = ("--socket",)
COLUMNS = ("port", "container", "endpoint", "problem")


def arguments(parser: ArgumentParser) -> None:
    """Add the container and the format."""
    parser.add_argument("container", nargs="?", help="a name, or the beginning of an id")
    add_format(parser)


def values(program: Program) -> dict[str, str]:
    """Return the names of the containers that have published ports."""
    ports = client.ask(program.socket, "GET", "/ports")["ports"]
    add_names(ports, program.docker.names())
    return {port["name"]: "" for port in ports if port["name"]}


VALUES = {"container": values}


def run(program: Program, args: Namespace) -> None:
    """Ask the plugin and Docker, and print all ports or those of the named container."""
    ports = client.ask(program.socket, "GET", "/ports")["ports"]
    add_names(ports, program.docker.names())
    show(of(ports, args.container) if args.container else ports, args.format, render)


def add_names(ports: Iterable[Document], names: Names) -> None:
    """Add to each port the id and name of its container, None if Docker knows none."""
    for port in ports:
        port["container"], port["name"] = names.containers.get(port["endpoint"], (None, None))


def of(ports: list[Document], what: str) -> list[Document]:
    """Return a container's ports by its name, or the beginning of its id or an endpoint's.

    Errors: UnknownObject if there are none.
    """
    names, ids = ("name", "container", "endpoint", "sandbox"), ("container", "endpoint")
    found = [port for port in ports if what in map(port.get, names)]
    found = found or [p for p in ports if any((p[kind] or "").startswith(what) for kind in ids)]
    if not found:
        raise UnknownObject(
            f"no published port belongs to {what!r}, as a container's name or id or an endpoint's "
            "id; `docker flannel ports` lists all"
        )
    return found


def render(ports: Iterable[Document]) -> str:
    """Return a table of ports."""
    in_order = sorted(ports, key=lambda port: (port["host_ip"], port["host_port"], port["proto"]))
    return to_table(COLUMNS, map(_row, in_order))


def _row(port: Document) -> Document:
    problems = [] if port["published"] else ["not published: the firewall lacks it"]
    problems += [] if port["held"] else ["not held: another program may have the host port"]
    shown = "{host_ip}:{host_port}->{container_ip}:{container_port}/{proto}".format(**port)
    return {
        **port,
        "port": shown,
        "container": port["name"],
        "endpoint": short(port["endpoint"]),
        "problem": "; ".join(problems),
    }
