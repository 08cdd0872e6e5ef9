"""`docker-flannel restore`: put a copy of the state back."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from driver.cli.program import Program
from driver.cli.settings import add_settings

HELP = "put such a copy back; stop the plugin first"


def arguments(parser: ArgumentParser) -> None:
    """Add the file and the option."""
    parser.add_argument("file", type=Path, help="the copy")
    add_settings(parser, "--state-dir")


def run(program: Program, args: Namespace) -> None:
    """Replace the state by the copy; the old state is kept beside it."""
    kept = program.restore(args.file)
    print(f"restored; what was there before is {kept}" if kept else "restored")
