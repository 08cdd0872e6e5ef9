"""What there is on a host of flanneld and of a dockerd with --bip. Immutable, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from driver.model.records import Lease
from driver.setup.migration.docker_files import DockerFiles


@dataclass(frozen=True, slots=True)
class Container:
    """A container of Docker's. `address`: on docker0 while it runs; `on_docker0`: also stopped.

    `removed`: Docker removes it when it stops (--rm).
    """

    name: str
    running: bool
    on_docker0: bool
    address: IPv4Address | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Docker:
    """A running dockerd. `unit`: docker.service runs it; `bip`: from its command line or file.

    `bridge`: the addresses of docker0. `needs`: units that docker.service needs.
    """

    process: int
    unit: bool
    bip: str
    bridge: tuple[IPv4Interface, ...]
    files: DockerFiles
    containers: tuple[Container, ...] = ()
    live_restore: bool = False
    needs: frozenset[str] = frozenset()

    @property
    def running(self) -> list[Container]:
        """The containers that run."""
        return [container for container in self.containers if container.running]

    @property
    def on_docker0(self) -> list[Container]:
        """The containers of docker0, whether they run or not."""
        return [container for container in self.containers if container.on_docker0]


@dataclass(frozen=True, slots=True)
class Flanneld:
    """A flanneld: its process, 0 if it does not run; its unit, "" if systemd does not run it.

    `settings`: of its files, its environment and its options, by variable. `enabled`: the unit
    starts at boot.
    """

    process: int = 0
    unit: str = ""
    enabled: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """flannel's vxlan device. `ours`: it bears this plugin's mark."""

    name: str
    mac: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Found:
    """All of it. `lease`: of flanneld's file, or None with `why`; `ipv6`: it has one for IPv6, too.

    `routes`: the words that name each of flanneld's routes to `ip route`. `rules`: by iptables
    command, the words that remove each of flanneld's rules and chains; `tables`: its nft tables.
    `status`: this plugin's, None if it does not answer. `settings`: the text of its settings file;
    `set_here`: what this sets. `reached`: the subnets to which this plugin has routes. `used`:
    the prefixes that the host has routes to. `names`: of Docker's networks by id.
    """

    file: Path
    lease: Lease | None
    why: str
    ipv6: bool
    flanneld: Flanneld
    docker: Docker | None
    device: Device | None
    routes: tuple[tuple[str, ...], ...]
    rules: Mapping[str, tuple[tuple[str, ...], ...]]
    tables: tuple[str, ...]
    status: Mapping[str, Any] | None
    settings: str = ""
    set_here: Mapping[str, str] = field(default_factory=dict)
    reached: frozenset[str] = frozenset()
    used: tuple[IPv4Network, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def subnet(self) -> IPv4Network | None:
        """The lease's subnet: that of the file, else this plugin's."""
        if self.lease:
            return self.lease.subnet
        known = self.status and self.status["lease"]
        return IPv4Network(known["subnet"]) if known else None

    @property
    def source(self) -> str:
        """Where this plugin's lease comes from, "" without one."""
        known = self.status and self.status["lease"]
        return str(known["source"]) if known else ""

    @property
    def held(self) -> IPv4Network | None:
        """What docker0 has of the lease, None for nothing."""
        addresses = self.docker.bridge if self.docker and self.subnet else ()
        parts = (a.network for a in addresses if self.subnet and a.network.overlaps(self.subnet))
        return next(parts, None)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing of a flanneld, and docker0 is out of any lease."""
        theirs = self.device and not self.device.ours
        left = self.flanneld.process or self.flanneld.unit or self.lease or theirs or self.rules
        return not (left or self.tables or self.held)

    def networks_in(self, part: IPv4Network) -> list[str]:
        """List the networks of this driver that have blocks in a part of the lease, by name."""
        rows = self.status["networks"] if self.status else ()
        inside = [r for r in rows if IPv4Network(r["block"]).overlaps(part)]
        return sorted(self.names.get(r["id"], r["id"][:12]) for r in inside)
