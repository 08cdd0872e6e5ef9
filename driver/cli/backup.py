"""`docker-flannel backup`: copy the state to a file, also while the plugin runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from driver.cli.program import Program
from driver.cli.settings import add_settings

HELP = "copy the state to a file, also while it is used"


def arguments(parser: ArgumentParser) -> None:
    """Add the file and the option."""
    parser.add_argument("file", type=Path, help="the copy")
    add_settings(parser, "--state-dir")


def run(program: Program, args: Namespace) -> None:
    """Copy the state."""
    program.backup(args.file)
