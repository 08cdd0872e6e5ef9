"""The machine that `init`, `join` and `leave` set up: adapters, and where its files are."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from driver import config
from driver.errors import Conflict, HostError, Unavailable
from driver.flannel.etcd.registry import Registry
from driver.flannel.etcd.settings import EtcdSettings
from driver.model.facts import External
from driver.setup import settings_file
from driver.setup.etcd_server import EtcdServer, Place
from driver.setup.services import Services

UNIT = "docker-flannel.service"
IFACE, PUBLIC_IP = "FLANNELD_IFACE", "FLANNELD_PUBLIC_IP"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine.

    `status` asks the service and raises Unavailable if it does not answer. `names` has Docker's
    names of networks by id. `limit` makes an etcd's users as `Administrator.limit_to` does.
    `underlay` finds the interface to the other hosts by name or address and by public IP. `say`
    tells the user what is done.
    """

    services: Services
    etcd: EtcdServer
    status: Callable[[], Document]
    names: Callable[[], Mapping[str, str]]
    registry: Callable[[EtcdSettings], Registry]
    limit: Callable[[EtcdSettings], None]
    underlay: Callable[[str, IPv4Address | None], External]
    say: Callable[[str], None]
    place: Place = field(default_factory=Place)
    settings_files: tuple[Path, ...] = settings_file.IN_ORDER
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time

    @property
    def folder(self) -> Path:
        """The folder of certificates and of the record."""
        return self.place.folder

    @property
    def settings(self) -> Path:
        """The settings file to write."""
        return self.settings_files[-1]

    def in_force(self) -> dict[str, str]:
        """Return what the settings files set. Errors: BadRequest, HostError."""
        found: dict[str, str] = {}
        for file in self.settings_files:
            found.update(settings_file.read(file))
        return {name: value for name, value in found.items() if value}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from changing this host with `init`, `join` or `leave` meanwhile.

        Errors: Conflict if one does, HostError.
        """
        file = self.place.lock
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(
                f"{file} cannot be opened: {error.strerror}; run the command as root"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Conflict(
                "another `init`, `join` or `leave` is at work on this host: wait for its end"
            ) from None
        finally:
            os.close(lock)

    def addresses(self, now: Mapping[str, str]) -> tuple[IPv4Address, IPv4Address]:
        """Return this host's address on its way to the others, and its public IP, by settings.

        Errors: BadRequest, Unavailable.
        """
        given = config.public_ip(now.get(PUBLIC_IP, ""))
        own = self.underlay(now.get(IFACE, ""), given).ip
        return own, given or own

    def check_service(self) -> None:
        """Check that the service can be started here. Errors: Unavailable."""
        self.services.check()
        if not self.services.files(UNIT):
            raise Unavailable(
                f"there is no {UNIT} on this host: install docker-flannel as a service; the "
                "managed plugin takes its settings from `docker plugin set`"
            )

    def running(self) -> Document:
        """Return the service's status; start it if it does not run. Errors: FlannelError."""
        if not self.services.active(UNIT):
            self.say(f"starting {UNIT}")
            self.services.restart(UNIT)
        return self.status()

    def check_networks(self, status: Document, why: str, allowed: str = "") -> None:
        """Check that no networks use the lease, unless it is from the source `allowed`.

        Errors: Conflict naming them.
        """
        lease = status["lease"]
        if not status["networks"] or lease is None or lease["source"] == allowed:
            return
        names = self.names()
        shown = sorted(names.get(n["id"], n["id"][:12]) for n in status["networks"])
        raise Conflict(
            f"networks have their addresses from {lease['subnet']} ({lease['source']}), which "
            f"{why}: remove them first with `docker network rm {' '.join(shown)}`, and make them "
            "anew afterwards"
        )
