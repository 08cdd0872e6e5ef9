"""The steps of the migration: what each changes, runs and means, and whether it can be done. Pure.

A step is derived from what is found on the host, never from what was done before. So each can be
repeated, and one that was broken off goes on where it stopped.
"""

from __future__ import annotations

from driver.config import SETTINGS
from driver.errors import BadRequest, Conflict
from driver.ipam import DOCKER0
from driver.model.records import ALIAS_PREFIX
from driver.setup import settings_file
from driver.setup.migration import docker_files
from driver.setup.migration.docker_files import Changes
from driver.setup.migration.docker_steps import release, share
from driver.setup.migration.found import Found
from driver.setup.migration.step import (
    COMMAND,
    OURS,
    RELEASE,
    RELOAD,
    REPLACE,
    Step,
    Words,
    unready,
)

ENDPOINTS = "FLANNELD_ETCD_ENDPOINTS"


def steps(found: Found) -> list[Step]:
    """Return the steps in their order."""
    return [share(found), release(found), replace(found)]


def replace(found: Found) -> Step:
    """Return the step in which this plugin takes flanneld's place."""
    name, title = REPLACE, "this plugin takes flanneld's place, with the same lease and MAC"
    flanneld = found.flanneld
    rest = (*_routes(found), *_rules(found))
    gone = not flanneld.process and not flanneld.enabled
    if (
        found.source == "etcd"
        and gone
        and not rest
        and not (found.device and not found.device.ours)
    ):
        return Step(name, title, done=f"the lease {found.subnet} is this plugin's")
    if why := unready(found) or _irreplaceable(found):
        return Step(name, title, hindrance=why)
    try:
        changes = _settings_file(found)
        if found.docker:
            changes |= docker_files.without_flanneld(found.docker.files)
    except (Conflict, BadRequest) as error:
        return Step(name, title, hindrance=str(error))
    commands: list[Words] = [RELOAD]
    if flanneld.unit:
        commands.append(("systemctl", "disable", flanneld.unit))
        commands.append(("systemctl", "stop", flanneld.unit))
    if found.device and not found.device.ours:
        mark = f"{ALIAS_PREFIX}vtep"
        commands.append(("ip", "link", "set", "dev", found.device.name, "alias", mark))
    return Step(
        name,
        title,
        effects=(
            "no container is restarted, and none gets another address",
            "open connections go on: device, MAC and lease stay, other hosts notice nothing",
            "for some seconds this host does not follow changes of other hosts, and Docker cannot "
            "start containers in networks of this driver",
        ),
        changes=changes,
        commands=(*commands, ("systemctl", "restart", OURS)),
        last=rest,
    )


def _irreplaceable(found: Found) -> str:
    """Return why flanneld cannot be replaced now."""
    flanneld = found.flanneld
    if found.ipv6:
        return "flanneld has a lease for IPv6, too, which this plugin does not have yet"
    if ENDPOINTS not in settings_of(found):
        return f"flanneld's etcd is not known: set {ENDPOINTS} in {settings_file.FLANNELD}"
    if flanneld.settings.get("FLANNELD_KUBE_SUBNET_MGR", "false") != "false":
        return "this flanneld has its lease from Kubernetes, not from etcd"
    if flanneld.process and not flanneld.unit:
        return (
            f"systemd does not run flanneld ({flanneld.process}): stop it yourself, see that it "
            "does not start at boot, and run this again"
        )
    if found.held is not None:
        return (
            f"{DOCKER0} has {found.held} of the lease, and other hosts reach its containers by "
            f"flanneld's rules alone: `{COMMAND} {RELEASE}` comes first"
        )
    return ""


def settings_of(found: Found) -> dict[str, str]:
    """Return those of flanneld's settings that this plugin has, too, and what it has of its own.

    The latter are flanneld's already where a broken-off step has written them.
    """
    ours = {s.variable for s in SETTINGS}
    known = {**found.set_here, **found.flanneld.settings}
    return {name: value for name, value in known.items() if name in ours}


def _settings_file(found: Found) -> Changes:
    """Return the change of this plugin's settings. Errors: BadRequest."""
    wanted: dict[str, str | None] = {**settings_of(found)}  # its own are there already
    if "DOCKER_FLANNEL_LEASE" in found.set_here:
        wanted["DOCKER_FLANNEL_LEASE"] = "auto"
    new = settings_file.edited(found.settings, wanted)
    return {settings_file.OURS: new} if new != found.settings else {}


def _routes(found: Found) -> list[Words]:
    """Return the commands that remove flanneld's routes: with its device one, however many."""
    name = found.device.name if found.device else ""
    direct = [("ip", "route", "del", *words) for words in found.routes if name not in words]
    flush = [("ip", "route", "flush", "dev", name, "proto", "boot")]
    return direct + (flush if len(direct) < len(found.routes) else [])


def _rules(found: Found) -> list[Words]:
    removed = [(tool, "-w", *words) for tool, rows in found.rules.items() for words in rows]
    return [*removed, *(("nft", "delete", "table", *t.split()) for t in found.tables)]
