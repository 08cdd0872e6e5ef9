"""Check whether this host can run the plugin, before and after it is installed."""

from __future__ import annotations

import shutil
from argparse import Namespace
from ipaddress import IPv4Network

from driver.cli.output import Document, add_format, show, to_table
from driver.cli.program import Program
from driver.config import SETTINGS as ALL
from driver.errors import Unavailable
from driver.setup import etcd_look
from driver.setup.check import FAILED, TOOLS, Look, findings

SETTINGS = tuple(s.option for s in ALL if not s.secret)
COLUMNS = ("check", "result", "what")

arguments = add_format


def run(program: Program, args: Namespace) -> None:
    """Look at the host, print what each check finds. Errors: Unavailable if one fails."""
    found = [
        {"check": name, "result": finding.result, "what": finding.text}
        for name, finding in findings(look(program))
    ]
    failed = sum(row["result"] == FAILED for row in found)
    show({"failed": failed, "checks": found}, args.format, render)
    if failed:
        raise Unavailable(f"{failed} of these must be put right before the plugin works here")


def look(program: Program) -> Look:
    """Ask host, Docker and etcd. Errors: HostError, BadRequest, Unavailable for bad settings."""
    config, docker = program.config, program.docker
    members = tuple(etcd_look.look(config.etcd, program.registry)) if config.etcd else ()
    overlay = next((m.overlay for m in members if m.overlay), None)
    version, fault, subnets = "", "", list[tuple[str, IPv4Network]]()
    try:
        version, subnets = docker.version(), docker.other_subnets()
    except Unavailable as error:
        fault = str(error)
    return Look(
        config,
        program.preflight(overlay),
        members,
        version,
        fault,
        subnets,
        tuple(name for name in TOOLS if shutil.which(name) is None),
    )


def render(doc: Document) -> str:
    """Return the findings as a table."""
    return to_table(COLUMNS, doc["checks"])
