"""Give up the lease, and undo what `init` or `join` did."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from driver.cli.machine import machine_of
from driver.cli.program import Program
from driver.setup.leaving import leave

SETTINGS = ()


def arguments(parser: ArgumentParser) -> None:
    """Add the option."""
    words = "even if other hosts use the etcd on this host, which is removed"
    parser.add_argument("--with-etcd", action="store_true", help=words)


def run(program: Program, args: Namespace) -> None:
    """Leave, and say so."""
    machine = machine_of(program)
    with machine.alone():
        left = leave(machine, with_etcd=args.with_etcd)
    words = "has left the flannel network" if left else "is in no network of `init` or `join`"
    print(f"this host {words}")
