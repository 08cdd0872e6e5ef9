"""Give up a network that Docker removed while the plugin was not running."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from driver.cli import client
from driver.cli.program import Program

SETTINGS = ("--socket",)


def arguments(parser: ArgumentParser) -> None:
    """Add the network."""
    parser.add_argument("what", help="beginning of the network's id, or its block")


def run(program: Program, args: Namespace) -> None:
    """Ask the plugin to forget the network."""
    answer = client.ask(program.config, "POST", "/Upkeep.Forget", {"What": args.what})
    print(f"forgotten: {answer['Forgotten']}")
