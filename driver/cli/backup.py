"""Copy the state to a file, even while the plugin runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from driver.cli.program import Program

SETTINGS = ("--state-dir",)


def arguments(parser: ArgumentParser) -> None:
    """Add the file."""
    parser.add_argument("file", type=Path, help="the copy")


def run(program: Program, args: Namespace) -> None:
    """Make the copy."""
    program.backup(args.file)
