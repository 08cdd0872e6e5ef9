"""Put a copy of the state back; stop the plugin first."""

from __future__ import annotations

from argparse import Namespace

from driver.cli.backup import SETTINGS, arguments
from driver.cli.program import Program

__all__ = ["SETTINGS", "arguments", "run"]


def run(program: Program, args: Namespace) -> None:
    """Replace the state by the copy; keep the old state beside it."""
    kept = program.restore(args.file)
    print(f"restored; what was there before is {kept}" if kept else "restored")
