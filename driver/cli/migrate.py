"""Go from flanneld and dockerd's --bip to this driver.

Without a step it changes nothing: it shows what is there and the steps that lie ahead.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from driver.cli import client
from driver.cli.program import Program
from driver.errors import BadRequest
from driver.setup.migration.carry import Workplace, carry_out
from driver.setup.migration.look import Look
from driver.setup.migration.report import report
from driver.setup.migration.step import RELEASE, REPLACE, SHARE
from driver.setup.migration.steps import steps
from driver.setup.migration.undo import take_back
from driver.text import visible

NOTHING = (
    "this host has no flanneld, and docker0 has nothing of a flannel lease: nothing to migrate\n"
)
SETTINGS = ("--socket", "--state-dir", "--subnet-file")


def arguments(parser: ArgumentParser) -> None:
    """Add the step."""
    parser.add_argument("step", nargs="?", choices=(SHARE, RELEASE, REPLACE))
    parser.add_argument("--undo", action="store_true", help="take the step back")
    parser.add_argument(
        "--force", action="store_true", help="also if containers on docker0 lose their addresses"
    )


def run(program: Program, args: Namespace) -> None:
    """Show, carry out or take back."""
    config = program.config
    look = Look(
        program.docker.socket,
        config.subnet_file,
        lambda: client.ask(program.socket, "GET", "/status"),
    )
    if args.step is None:
        if args.undo or args.force:
            raise BadRequest(f"--undo and --force need a step: {SHARE}, {RELEASE} or {REPLACE}")
        found = look.found()
        print(NOTHING if found.nothing else report(found, steps(found)), end="")
        return
    place = Workplace(look, config.state_dir, program.registry, _say)
    if args.undo:
        take_back(place, args.step)
    else:
        carry_out(place, args.step, force=args.force)


def _say(text: str) -> None:
    print(visible(text), flush=True)
