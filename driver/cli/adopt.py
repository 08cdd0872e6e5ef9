"""Take over networks and containers that Docker knows and the plugin does not."""

from __future__ import annotations

from argparse import Namespace

from driver.cli import client
from driver.cli.program import Program
from driver.errors import Unavailable

SETTINGS = ("--socket",)


def run(program: Program, _: Namespace) -> None:
    """Send the plugin what Docker knows, and print what it took over."""
    answer = client.ask(program.socket, "POST", "/Upkeep.Adopt", program.docker.described())
    print("\n".join(f"taken over: {what}" for what in answer["Adopted"]) or "nothing to take over")
    if answer["Left"]:
        raise Unavailable("; ".join(answer["Left"]))
