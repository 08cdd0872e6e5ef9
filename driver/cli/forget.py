"""Give up a network that Docker removed while the plugin was not running."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from driver.cli import client
from driver.cli.program import Program
from driver.model.records import short

SETTINGS = ("--socket",)


def arguments(parser: ArgumentParser) -> None:
    """Add the network."""
    parser.add_argument("what", help="beginning of the network's id, or its block")


def values(program: Program) -> dict[str, str]:
    """Return the ids of the networks that Docker does not list, each with its block.

    Errors: Unavailable, also if Docker does not answer: any network might be in use.
    """
    networks = client.ask(program.socket, "GET", "/status")["networks"]
    known = program.docker.networks()
    return {short(n["id"]): n["block"] for n in networks if n["id"] not in known}


VALUES = {"what": values}


def run(program: Program, args: Namespace) -> None:
    """Ask the plugin to forget the network."""
    answer = client.ask(program.socket, "POST", "/Upkeep.Forget", {"What": args.what})
    print(f"forgotten: {answer['Forgotten']}")
