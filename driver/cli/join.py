"""Join the flannel network of a token from `init`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from driver.cli.machine import described, given, machine_of
from driver.cli.program import Program
from driver.setup.entering import join

SETTINGS = ("--iface", "--public-ip")
LONGEST = 1 << 20


def arguments(parser: ArgumentParser) -> None:
    """Add the token."""
    words = "what `init` printed; - reads it from standard input, and no shell's history has it"
    parser.add_argument("token", help=words)


def run(program: Program, args: Namespace) -> None:
    """Join, and print the lease and the peers."""
    line = sys.stdin.read(LONGEST) if args.token == "-" else args.token  # noqa: S105
    machine = machine_of(program)
    with machine.alone():
        status = join(machine, line, given(args, *SETTINGS))
    print(*described(status), sep="\n")
