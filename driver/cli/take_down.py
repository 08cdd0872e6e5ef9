"""Remove from this host what docker-flannel made on it; first remove its networks and stop it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from driver.cli.program import Program

SETTINGS = ("--state-dir", "--subnet-file")


def arguments(parser: ArgumentParser) -> None:
    """Add the option."""
    words = "only say whether networks stand in the way"
    parser.add_argument("--check", action="store_true", help=words)


def run(program: Program, args: Namespace) -> None:
    """Check or take down."""
    if args.check:
        program.check_unused()
    elif program.take_down():
        print("links, routes and firewall of docker-flannel are removed; its state is kept")
    else:
        print("the managed plugin works here: links, routes and firewall stay")
