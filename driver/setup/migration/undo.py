"""Takes a step of the migration back."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from driver.errors import Conflict
from driver.ipam import DOCKER0
from driver.setup.migration.carry import Workplace, start_again
from driver.setup.migration.found import Found
from driver.setup.migration.look import UNITS
from driver.setup.migration.record import Record
from driver.setup.migration.step import (
    COMMAND,
    OURS,
    RELEASE,
    RELOAD,
    REPLACE,
    RESTART,
    SHARE,
    Words,
)

STEPS = (SHARE, RELEASE, REPLACE)


def take_back(place: Workplace, name: str) -> None:
    """Take a step back, the last first.

    Errors: Conflict if it cannot be done now, before anything is changed; FlannelError if something
    fails on the way: the same call goes on from there.
    """
    record = Record.read(place.state, name)
    if record is None:
        raise Conflict(
            f"{name} was not carried out by `{COMMAND} {name}`: there is nothing to undo"
        )
    for later in STEPS[STEPS.index(name) + 1 :]:
        if Record.read(place.state, later):
            raise Conflict(f"{later} came after {name}: `{COMMAND} {later} --undo` comes first")
    # a call that broke off may have left Docker on its way
    found = place.docker_back() if record.containers else place.look.found()
    record.check()
    if name == REPLACE:
        _give_back(place, found, record)
    else:
        _docker0(place, found, record)
    record.remove()
    place.say(f"{name} is undone")


def _docker0(place: Workplace, found: Found, record: Record) -> None:
    """Give docker0 back the prefix it had."""
    prefix = IPv4Network(record.prefix) if record.prefix else None
    if prefix and (inside := found.networks_in(prefix)):
        raise Conflict(
            f"{DOCKER0} had {prefix}, where networks of this driver are now: remove them first "
            f"with `docker network rm {' '.join(inside)}`"
        )
    docker = found.docker
    if docker is None:
        raise Conflict("Docker does not run: start it with `systemctl start docker.service`")
    record.containers = sorted({*record.containers, *(c.name for c in docker.running)})
    record.save()
    record.restore()
    commands: list[Words] = [RELOAD]
    if docker.live_restore and docker.running:
        commands.append(("docker", "stop", *(c.name for c in docker.running)))
    place.run([*commands, RESTART])
    start_again(place, record)
    place.wait(
        f"{DOCKER0}", lambda now: "" if now.held == prefix else f"it has {now.held or 'no lease'}"
    )


def _give_back(place: Workplace, found: Found, record: Record) -> None:
    """Have flanneld keep the lease again, with the device and MAC that this host has."""
    unit = found.flanneld.unit
    if not unit:
        raise Conflict(f"there is no unit {UNITS[0]} any more: install flanneld again first")
    record.restore()
    place.run(_handed_back(found, unit))
    place.wait("flanneld's lease", lambda now: now.why)
    place.run([("systemctl", "start", OURS)])
    place.wait("the lease", _not_beside)
    device = found.device.name if found.device else ""
    if device:
        place.run([("ip", "route", "flush", "dev", device, "proto", "91")])


def _handed_back(found: Found, unit: str) -> Iterator[Words]:
    yield RELOAD
    yield ("systemctl", "stop", OURS)
    if found.device and found.device.ours:
        name = found.device.name
        yield ("ip", "link", "set", "dev", name, "group", "default", "alias", "")
    yield ("systemctl", "enable", unit)
    yield (
        "systemctl",
        "start",
        unit,
    )  # to restart it would restart Docker, too, where that needs it


def _not_beside(found: Found) -> str:
    if found.status is None:
        return "this plugin does not answer"
    return "" if found.source == "subnet-file" else f"{found.status['phase']}, {found.source}"
