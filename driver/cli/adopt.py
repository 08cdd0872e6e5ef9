"""`docker-flannel adopt`: tell the plugin what Docker knows of its networks and containers."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from driver.cli import client
from driver.cli.program import Program
from driver.cli.settings import add_settings
from driver.errors import Unavailable

HELP = "ask Docker for networks and containers that the plugin does not know"


def arguments(parser: ArgumentParser) -> None:
    """Add the option."""
    add_settings(parser, "--socket")


def run(program: Program, _: Namespace) -> None:
    """Ask Docker, and have the plugin take over what it lacks."""
    answer = client.ask(program.config, "POST", "/Upkeep.Adopt", client.described())
    print("\n".join(f"taken over: {what}" for what in answer["Adopted"]) or "nothing to take over")
    if answer["Left"]:
        raise Unavailable("; ".join(answer["Left"]))
