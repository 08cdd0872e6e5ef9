"""Makes this host one of a flannel network: `join`, and the last part of `init`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from driver.errors import Conflict, Exhausted, FlannelError, HostError, Unavailable
from driver.files import text_of, write_file
from driver.flannel.etcd.settings import EtcdSettings
from driver.flannel.lease_policy import step
from driver.flannel.lease_types import PolicyState, ThisHost
from driver.flannel.mirror import Mirror
from driver.setup import settings_file
from driver.setup.joined import Joined
from driver.setup.leaving import put_back
from driver.setup.machine import UNIT, Document, Machine
from driver.setup.token import Token
from driver.setup.waiting import holds, until_held

ENDPOINTS = "FLANNELD_ETCD_ENDPOINTS"
PREFIX = "FLANNELD_ETCD_PREFIX"
LEASE = "DOCKER_FLANNEL_LEASE"
FILES = ("ca.pem", "client.pem", "client.key")
WHY = "the flannel network's lease would replace"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What joining writes: settings, and files by name into the machine's folder."""

    settings: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def join(machine: Machine, line: str, more: Mapping[str, str]) -> Document:
    """Join the network of a token; `more` are settings of this host alone. Return the status.

    Errors: FlannelError. If the service cannot use the settings, they are as they were.
    """
    token = Token.decode(line)
    token.check_clock(machine.now())
    machine.check_service()
    now = {**machine.in_force(), **more}
    check_source(machine, now)
    check_elsewhere(token, now)
    status = machine.running()
    machine.check_networks(status, WHY, allowed="etcd")
    with _staged(machine.folder, token) as etcd:
        machine.say(f"asking etcd at {token.hosts}")
        contested = check_etcd(machine, etcd, now, status)
    record = Joined.of(machine.folder)
    wanted = Wanted({**settings_of(token, machine.folder), **more}, files_of(token))
    with or_undo(machine, record):
        return enter(machine, record, wanted, contested=contested)


def settings_of(token: Token, folder: Path) -> dict[str, str]:
    """Return the settings that a token stands for, with its files in a folder."""
    found = {
        ENDPOINTS: token.endpoints,
        PREFIX: token.prefix,
        "FLANNELD_ETCD_CAFILE": str(folder / FILES[0]) if token.authority else "",
        "FLANNELD_ETCD_CERTFILE": str(folder / FILES[1]) if token.certificate else "",
        "FLANNELD_ETCD_KEYFILE": str(folder / FILES[2]) if token.key else "",
        "FLANNELD_ETCD_USERNAME": token.username,
        "FLANNELD_ETCD_PASSWORD": token.password,
    }
    return {name: value for name, value in found.items() if value}


def files_of(token: Token) -> dict[str, str]:
    """Return a token's certificates and key by the names of their files."""
    texts = (token.authority, token.certificate, token.key)
    return {name: text for name, text in zip(FILES, texts, strict=True) if text}


def check_source(machine: Machine, now: Mapping[str, str]) -> None:
    """Check that the settings in force let the lease come from etcd. Errors: Conflict."""
    if (source := now.get(LEASE, "auto")) not in ("auto", "etcd"):
        raise Conflict(
            f"{LEASE} is {source} in {machine.settings}, so the lease would not come from etcd: "
            "remove that line first"
        )


def check_elsewhere(token: Token, now: Mapping[str, str]) -> None:
    """Check that the settings in force say nothing else than the token.

    The same authority means the same etcd, perhaps at another address. Errors: Conflict.
    """
    if ENDPOINTS not in now:
        return
    there = EtcdSettings.read(now[ENDPOINTS], now.get(PREFIX, ""))
    wanted = token.settings()
    if there.prefix == wanted.prefix:
        if there.endpoints == wanted.endpoints:
            return
        authority = now.get("FLANNELD_ETCD_CAFILE")
        if authority and token.authority and text_of(Path(authority)) == token.authority:
            return
    raise Conflict(
        f"this host has joined another network: {ENDPOINTS} is {now[ENDPOINTS]}, {PREFIX} is "
        f"{there.prefix}; run `docker-flannel leave` first"
    )


@contextmanager
def _staged(folder: Path, token: Token) -> Iterator[EtcdSettings]:
    """Write a token's files for as long as etcd is asked; yield the settings with them.

    Errors: HostError.
    """
    stage = folder / "joining"
    shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
    try:
        write_files(stage, files_of(token))
        yield token.settings(*(str(stage / name) for name in FILES))
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # it has more than that, or is not there
            folder.rmdir()


def write_files(folder: Path, files: Mapping[str, str]) -> bool:
    """Write secrets into a folder; return whether that changed any. Errors: HostError."""
    changed = False
    try:
        for name, text in files.items():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            if text_of(folder / name) != text:
                write_file(folder / name, text.encode(), 0o600)
                changed = True
    except OSError as error:
        raise HostError(f"{folder} cannot be written: {error.strerror}") from error
    return changed


def check_etcd(
    machine: Machine, etcd: EtcdSettings, now: Mapping[str, str], status: Document
) -> bool:
    """Check that etcd would give this host a lease; return whether another host may claim it.

    Errors: Exhausted, Unavailable, FlannelError.
    """
    _, public_ip = machine.addresses(now)
    mirror = Mirror(machine.registry(etcd), etcd.prefix)
    try:
        mirror.sync()
    except Unavailable as error:
        ports = sorted({str(e.port) for e in etcd.endpoints})
        raise Unavailable(
            f"{error}; does etcd run there, and does a firewall on the way let this host reach TCP "
            f"port {', '.join(ports)}?"
        ) from error
    view = mirror.view()
    mac = status["overlay"]["mac"] if status["overlay"] else None
    found = step(PolicyState(), view, ThisHost(public_ip, mac), 0.0, lambda free: free[0])
    if found.action is None:
        kind = Exhausted if found.phase == "acquiring" else Unavailable
        raise kind(found.problems[0])
    return any(r.public_ip == public_ip and r.mac != mac for r in view.leases[0])


@contextmanager
def or_undo(machine: Machine, record: Joined) -> Iterator[None]:
    """Put a host back that was in no network before, if the block fails.

    What the service uses stays, unless it can never get a lease.
    """
    fresh = not record.applied
    try:
        yield
    except FlannelError as error:
        goes_on = record.applied and isinstance(error, Unavailable)
        if fresh and not goes_on:
            machine.say("putting everything back as it was")
            if put_back(machine, record):
                machine.services.restart(UNIT)
            record.remove()
        raise


def enter(machine: Machine, record: Joined, wanted: Wanted, *, contested: bool = False) -> Document:
    """Write what is wanted, start the service with it, and wait for the lease; return the status.

    Errors: FlannelError.
    """
    settings, files = wanted.settings, wanted.files
    record.add(settings, files, settings_file.read(machine.settings))
    record.leaving = None
    record.save()
    changed = write_files(machine.folder, files)
    if settings_file.edit(machine.settings, settings):
        machine.say(f"wrote the settings to {machine.settings}")
        changed = True
    if changed or not record.applied or not holds(machine.running()):
        machine.say(f"starting {UNIT} with these settings")
        machine.services.enable(UNIT)
        machine.services.restart(UNIT)
    record.applied = True
    record.save()
    return until_held(machine, contested=contested)
