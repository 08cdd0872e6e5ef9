"""A step of the migration, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network

from driver.ipam import DOCKER0
from driver.setup.migration.docker_files import Changes
from driver.setup.migration.found import Found

COMMAND = "docker-flannel migrate"
OURS = "docker-flannel.service"
SHARE, RELEASE, REPLACE = "share", "release", "replace"  # the steps' names

Words = tuple[str, ...]
RESTART: Words = ("systemctl", "restart", "docker.service")
RELOAD: Words = ("systemctl", "daemon-reload")


@dataclass(frozen=True, slots=True)
class Step:
    """A step. `done`: what shows that it is done; `hindrance`: why it cannot be carried out now.

    `effects`: what it does to containers and the network. First the files change, then `commands`
    run; then the containers `start` are started if they do not run by themselves, and `last` runs.
    """

    name: str
    title: str
    done: str = ""
    hindrance: str = ""
    effects: tuple[str, ...] = ()
    changes: Changes = field(default_factory=dict)
    commands: tuple[Words, ...] = ()
    start: tuple[str, ...] = ()
    last: tuple[Words, ...] = ()


def unready(found: Found) -> str:
    """Return why nothing can be done at all."""
    if found.subnet is None:
        return f"no flannel lease is known: {found.why}"
    if found.docker is None:
        return "Docker does not run: start it with `systemctl start docker.service`"
    if found.status is None:
        return f"this plugin does not answer: start it with `systemctl start {OURS}`"
    known = found.status["lease"]
    if known is None or IPv4Network(known["subnet"]) != found.subnet:
        has = known["subnet"] if known else "none"
        return (
            f"flanneld's lease is {found.subnet}, but this plugin's is {has}: see `docker-flannel "
            "status`"
        )
    network = found.lease.network if found.lease else found.subnet
    stale = [a.network for a in found.docker.bridge if a.network.overlaps(network)]
    if stale and found.held is None:
        return (
            f"{DOCKER0} has {stale[0]} of flannel's network, but the lease is {found.subnet}: see "
            f"whether {found.file} is right, and whether Docker was restarted since"
        )
    return ""
