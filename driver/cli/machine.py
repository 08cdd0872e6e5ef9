"""The machine that `init`, `join` and `leave` set up, put together of the program's parts."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial

from driver.cli import client
from driver.cli.output import Document
from driver.cli.program import Program
from driver.config import SETTINGS
from driver.setup.etcd_server import EtcdServer
from driver.setup.machine import Machine
from driver.setup.services import AptGet, Systemd
from driver.text import visible

SHOWN_PEERS = 20


def machine_of(program: Program) -> Machine:
    """Return this machine. Errors: BadRequest if a setting is bad."""
    services = Systemd()
    return Machine(
        services=services,
        etcd=EtcdServer(services, AptGet()),
        status=partial(client.ask, program.socket, "GET", "/status"),
        names=lambda: program.docker.names().networks,
        registry=program.registry,
        limit=program.limit,
        underlay=program.underlay,
        say=lambda text: print(visible(text), file=sys.stderr, flush=True),
    )


def given(args: Namespace, *options: str) -> dict[str, str]:
    """Return the settings that the command line has, by their variables."""
    values = {s.variable: vars(args)[s.option] for s in SETTINGS if s.option in options}
    return {name: value for name, value in values.items() if value}


def described(status: Document) -> Iterator[str]:
    """Yield lines on this host's lease and its peers."""
    lease, peers = status["lease"], status["peers"]
    yield f"this host has {lease['subnet']} of {lease['network']}"
    yield from (f"peer {p['subnet']} at {p['public_ip']}" for p in peers[:SHOWN_PEERS])
    if len(peers) > SHOWN_PEERS:
        yield f"and {len(peers) - SHOWN_PEERS} more peers"
    if not peers:
        yield "there are no other hosts yet"
