"""`docker-flannel serve`: the service."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from driver.cli.program import Program
from driver.cli.settings import add_settings
from driver.config import SETTINGS
from driver.errors import Conflict

HELP = "answer Docker until SIGTERM"
OCCUPIED = 69  # exit status when another instance is at work, which no restart changes


def arguments(parser: ArgumentParser) -> None:
    """Add every setting that is no secret: everybody sees the command line of a process."""
    add_settings(parser, *(setting.option for setting in SETTINGS if not setting.secret))


def run(program: Program, _: Namespace) -> None:
    """Serve."""
    try:
        program.serve()
    except Conflict as error:
        error.exit_status = OCCUPIED
        raise
