"""What `migrate` prints before anything is changed. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from driver.ipam import DOCKER0
from driver.setup.migration.docker_files import shown
from driver.setup.migration.found import Docker, Found
from driver.setup.migration.step import COMMAND, RELEASE, REPLACE, SHARE, Step

COMPOSE = """\
{number}. Move your stacks, one at a time, whenever it suits you
   run docker compose down
   add to its file `networks: {{default: {{driver: flannel, ipam: {{driver: flannel}}}}}}`
   remove `network_mode: bridge` from it
   run docker compose up -d
   the stack is away between the two; its containers get other addresses, which other hosts reach
   networks on the same host do not reach each other by address, as everywhere in Docker
"""
HIDDEN = "PASSWORD="


def report(found: Found, steps: list[Step]) -> str:
    """Return what is there and the steps that lie ahead."""
    rows = [f"  {name:15} {text}\n" for name, text in _rows(found)]
    return (
        "What is on this host\n" + "".join(rows) + "\nThe steps\n" + "".join(_steps(found, steps))
    )


def _rows(found: Found) -> Iterator[tuple[str, str]]:
    flanneld, lease = found.flanneld, found.lease
    yield "flanneld", _flanneld(found)
    for name, value in sorted(flanneld.settings.items()):
        yield "", f"{name}={'(hidden)' if name.endswith('PASSWORD') else value}"
    if lease:
        yield "lease", f"{lease.subnet} of {lease.network}, MTU {lease.mtu}, in {found.file}"
    else:
        yield "lease", found.why
    if found.device:
        whose = "this plugin's" if found.device.ours else "flanneld's"
        yield found.device.name, f"{whose}, MAC {found.device.mac}"
    yield "routes", f"{len(found.routes)} of flanneld's to other hosts"
    for tool, rows in found.rules.items():
        chains = [f"{w[1]} {w[3]}" for w in rows if w[2] == "-X"]
        yield tool, f"flanneld's chains {', '.join(chains) or 'none'}, and rules"
    for table in found.tables:
        yield "nftables", f"flanneld's table {table}"
    if found.docker:
        yield from _docker(found, found.docker)
    else:
        yield "Docker", "does not run"
    known = found.status and found.status["lease"]
    if known and found.status:
        yield "docker-flannel", f"{known['subnet']} from {known['source']}, {found.status['phase']}"
    else:
        yield "docker-flannel", "has no lease" if found.status else "does not answer"


def _flanneld(found: Found) -> str:
    flanneld = found.flanneld
    runs = f"process {flanneld.process}" if flanneld.process else "does not run"
    unit = f"{flanneld.unit}, {'enabled' if flanneld.enabled else 'not enabled'}"
    return f"{runs}, {unit}" if flanneld.unit else f"{runs}, no unit"


def _docker(found: Found, docker: Docker) -> Iterator[tuple[str, str]]:
    part = "all" if found.held == found.subnet else f"{found.held}" if found.held else "nothing"
    bridge = ", ".join(map(str, docker.bridge))
    yield DOCKER0, f"{bridge or 'no address'}, {part} of the lease"
    sources = ", ".join(map(str, docker.files.sources())) or "nowhere in docker.service's files"
    yield "--bip", f"{docker.bip}, set in {sources}" if docker.bip else "not set"
    yield "live-restore", "on" if docker.live_restore else "off"
    yield "containers", f"{len(docker.running)} run, {len(docker.on_docker0)} are on {DOCKER0}"
    subnet = found.subnet
    for each in docker.running:
        if each.address and subnet and each.address in subnet:
            yield "", f"{each.name} has {each.address} of the lease"


def _steps(found: Found, steps: list[Step]) -> Iterator[str]:
    numbers, by_name = count(1), {step.name: step for step in steps}
    old: dict[Path, str] = {}
    if found.docker:
        files = found.docker.files
        old = {**files.units, **files.environment, files.daemon_json: files.daemon}
    for name in (SHARE, RELEASE, REPLACE):
        step = by_name[name]
        if name == RELEASE:
            yield COMPOSE.format(number=next(numbers))
        yield f"{next(numbers)}. {step.name}: {step.title}\n"
        if step.done:
            yield f"   done: {step.done}\n"
            continue
        if step.hindrance:
            yield f"   not now: {step.hindrance}\n"
        for line in shown(step.changes, old):
            yield f"   {line if HIDDEN not in line else '  + (a password)'}\n"
        commands = [*step.commands, *([("docker", "start", *step.start)] if step.start else [])]
        yield from (f"   run {shlex.join(words)}\n" for words in (*commands, *step.last))
        yield from (f"   {effect}\n" for effect in step.effects)
        if step.commands:
            yield f"   carry it out: {COMMAND} {name}; take it back: {COMMAND} {name} --undo\n"
