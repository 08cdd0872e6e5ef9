"""The steps that change what docker0 has of the lease. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace as changed
from ipaddress import IPv4Interface, IPv4Network

from driver.errors import Conflict
from driver.ipam import DOCKER0
from driver.setup.migration import docker_files
from driver.setup.migration.docker_files import Changes
from driver.setup.migration.found import Docker, Found
from driver.setup.migration.step import RELEASE, RELOAD, RESTART, SHARE, Step, Words, unready

QUARTER, HALF = 2, 1  # bits that a part of the lease is longer than the lease
POOLS = IPv4Network("172.16.0.0/12")  # Docker's own prefixes, from the second /16 on
SMALLEST = 29  # prefix length of a lease whose half has room for a container
TAKEN = 3  # addresses of a prefix that no container gets: its first, its last, docker0's


def bip_for(found: Found) -> IPv4Interface:
    """Return the address that docker0 gets when the lease is shared.

    It is of the first quarter of the lease, or of the first half if docker0's containers fill more
    than half of that quarter. The gateway stays the same. Errors: Conflict.
    """
    subnet, docker = found.subnet, found.docker
    if subnet is None or docker is None:
        raise Conflict("without a lease and a running Docker there is nothing to share")
    if subnet.prefixlen > SMALLEST:
        raise Conflict(
            f"the lease {subnet} is too small to be shared: it has no room for two parts"
        )
    count = len(docker.on_docker0)
    for bits in (QUARTER, HALF):
        part = next(subnet.subnets(bits))
        room = part.num_addresses - TAKEN
        if 2 * count <= room or (bits == HALF and count <= room):
            return IPv4Interface((part[1], part.prefixlen))
    raise Conflict(
        f"{count} containers are on {DOCKER0}, and half of the lease has room for {room}: move "
        "some to other networks first"
    )


def bip_outside(found: Found) -> IPv4Interface:
    """Return the address that docker0 gets outside the lease: of the first free prefix of Docker's.

    Source: moby, libnetwork/ipamutils. Errors: Conflict.
    """
    for prefix in list(POOLS.subnets(new_prefix=16))[1:]:
        if not any(prefix.overlaps(other) for other in found.used):
            return IPv4Interface((prefix[1], prefix.prefixlen))
    raise Conflict(f"this host uses all of {POOLS}: set bip in daemon.json yourself")


def share(found: Found) -> Step:
    """Return the step in which docker0 leaves most of the lease to this driver's networks."""
    name, title = SHARE, f"{DOCKER0} keeps a part of the lease; this driver's networks get the rest"
    if why := unready(found):
        return Step(name, title, hindrance=why)
    if found.held is None:
        return Step(name, title, done=f"{DOCKER0} has nothing of the lease {found.subnet}")
    if found.held != found.subnet:
        return Step(name, title, done=f"{DOCKER0} has {found.held} of the lease {found.subnet}")
    try:
        bip = bip_for(found)
    except Conflict as error:
        return Step(name, title, hindrance=str(error))
    step = _of_docker(
        found,
        Step(name, title),
        lambda files: docker_files.with_bip(files, str(bip)),
        (f"{DOCKER0} has {found.held} now and {bip.network} afterwards, with the "
         "same gateway",
         "other hosts reach the containers on it as before, at addresses that `docker inspect` "
         "shows"),
    )  # fmt: skip
    if not step.hindrance and found.docker and not found.docker.files.sources():
        why = f"{DOCKER0} has its prefix from Docker's own store: set bip to {bip} in "
        why += f"{found.docker.files.daemon_json}, and restart Docker"
        return Step(name, title, hindrance=why)
    return step


def release(found: Found) -> Step:
    """Return the step in which docker0 leaves the lease."""
    name, title = RELEASE, f"{DOCKER0} leaves the lease, and takes a prefix of Docker's own"
    docker = found.docker
    if why := unready(found):
        return Step(name, title, hindrance=why)
    assert docker is not None  # noqa: S101 - `unready` has checked
    try:
        cuts = docker_files.without_flanneld(docker.files)
    except Conflict as error:
        return Step(name, title, hindrance=str(error))
    if found.held is None and not cuts:
        return Step(name, title, done=f"{DOCKER0} has nothing of the lease {found.subnet}")
    step = _of_docker(
        found,
        Step(name, title),
        lambda files: docker_files.apart(files, str(bip_outside(found))),
        ("other hosts no longer reach containers on docker0; those in networks of this driver are "
         "reached as before",),
    )  # fmt: skip
    if docker.on_docker0 and found.held and not step.hindrance:
        names = ", ".join(c.name for c in docker.on_docker0)
        return changed(
            step,
            hindrance=f"{names} would lose the lease address on {DOCKER0} and no longer be reached "
            "by other hosts: move them to a network of this driver first, or add --force",
        )
    return step


def _of_docker(
    found: Found,
    step: Step,
    change: Callable[[docker_files.DockerFiles], Changes],
    effects: Iterable[str],
) -> Step:
    """Return a step that changes Docker's settings and restarts it."""
    docker = found.docker
    assert docker is not None  # noqa: S101 - `unready` has checked
    if not docker.unit:
        why = f"docker.service does not run dockerd ({docker.process}): restart it by that unit"
        return changed(step, hindrance=why)
    if docker.bip and not docker.files.sources():
        why = (
            f"dockerd has --bip={docker.bip} on its command line, but no file of docker.service "
            "sets it: change it where it is set, and restart Docker"
        )
        return changed(step, hindrance=why)
    try:
        docker_files.check_daemon_json(docker.files)
        changes = change(docker.files)
    except Conflict as error:
        return changed(step, hindrance=str(error))
    running = docker.running
    commands: list[Words] = [RELOAD]
    if docker.live_restore and running:
        commands.append(("docker", "stop", *(c.name for c in running)))
    return changed(
        step,
        effects=(*effects, *_interruption(docker)),
        changes=changes,
        commands=(*commands, RESTART),
        start=tuple(c.name for c in running if not c.removed),
    )


def _interruption(docker: Docker) -> list[str]:
    running = docker.running
    if not running:
        return ["no container runs"]
    told = [
        f"all {len(running)} running containers are stopped and started again, in every network; "
        "each is away for as long as Docker's restart and its own stop and start take"
    ]
    if docker.live_restore:
        told.append(
            "live-restore is on: Docker would keep its old prefix while any container runs, so "
            "they are stopped first"
        )
    if removed := [c.name for c in running if c.removed]:
        told.append(f"{', '.join(removed)} will be gone: Docker removes it when it stops (--rm)")
    if moved := [c.name for c in running if c.on_docker0]:
        told.append(f"{', '.join(moved)} may get another address")
    return told
