"""A machine in memory, but for its files, and other hosts around the same etcd."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from driver.errors import FlannelError, HostError, Unavailable
from driver.flannel.etcd.settings import EtcdSettings
from driver.flannel.records import config_key, lease_key, lease_range, lease_value
from driver.model.facts import External
from driver.setup import etcd_server
from driver.setup.etcd_server import EtcdServer, Place
from driver.setup.machine import UNIT, Machine
from tests.unit.etcd_fake import FakeRegistry

PREFIX = "/coreos.com/network"
IP, MAC = IPv4Address("192.0.2.11"), "02:00:00:00:00:11"
CONFIG = '{"Network": "10.2.0.0/16", "SubnetLen": 21, "Backend": {"Type": "vxlan"}}'
DEBIANS = Path("/lib/systemd/system/etcd.service")


class FakeServices:
    """A service manager; `started` is called with each unit that starts."""

    def __init__(self, started: Callable[[str], None] = lambda _unit: None) -> None:
        self.units: dict[str, tuple[Path, ...]] = {}
        self.running: set[str] = set()
        self.at_boot: set[str] = set()
        self.calls: list[str] = []
        self._started = started

    def check(self) -> None:
        self.calls.append("check")

    def files(self, unit: str) -> tuple[Path, ...]:
        return self.units.get(unit, ())

    def active(self, unit: str) -> bool:
        return unit in self.running

    def enabled(self, unit: str) -> bool:
        return unit in self.at_boot

    def reload(self) -> None:
        self.calls.append("reload")

    def restart(self, unit: str) -> None:
        self.calls.append(f"restart {unit}")
        if unit not in self.units:
            raise HostError(f"Unit {unit} not found.")
        self._started(unit)
        self.running.add(unit)

    def stop(self, unit: str) -> None:
        self.calls.append(f"stop {unit}")
        self.running.discard(unit)

    def enable(self, unit: str) -> None:
        self.calls.append(f"enable {unit}")
        self.at_boot.add(unit)

    def disable(self, unit: str) -> None:
        self.calls.append(f"disable {unit}")
        self.at_boot.discard(unit)


@dataclass
class World:
    """The machine's surroundings. `step` is called before everything that the machine does."""

    folder: Path
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    networks: list[dict[str, str]] = field(default_factory=list)
    lease: dict[str, Any] | None = None
    phase: str = "held"
    problems: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    limited: list[str] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)
    listening: set[int] = field(default_factory=set)
    step: Callable[[], None] = lambda: None
    breaks: FlannelError | None = None  # when the service is next started with etcd
    time: float = 0.0

    def __post_init__(self) -> None:
        self.services = FakeServices(self._started)
        self.services.units[UNIT] = (Path("/lib/systemd/system", UNIT),)
        self.settings = self.folder / "default" / "docker-flannel"
        self.place = Place(
            self.folder / "docker-flannel",
            self.folder / "etcd.service.d" / "docker-flannel.conf",
            self.folder / "default" / "etcd",
            self.folder / "data",
            self.folder / "lock",
        )
        self.settings.parent.mkdir(parents=True)
        self.settings.touch()
        self.services.enable(UNIT)
        self.services.restart(UNIT)

    @property
    def machine(self) -> Machine:
        """The machine as the commands see it."""
        return Machine(
            services=_Stepping(self.services, self._step),  # type: ignore[arg-type]
            etcd=EtcdServer(
                self.services, self, self.place, lambda _, port: port in self.listening
            ),
            status=self.status,
            names=lambda: {"a" * 64: "app"},
            registry=lambda _: self.registry,
            limit=self.limit,
            underlay=lambda _iface, ip: External("eth0", ip or IP, 1500),
            say=self.say,
            place=self.place,
            settings_files=(self.settings.with_name("flanneld"), self.settings),
            clock=lambda: self.time,
            sleep=self.sleep,
            now=lambda: 1_800_000_000.0,
        )

    # --- what the machine is made of ---

    def _step(self) -> None:
        self.step()

    def install(self, name: str) -> None:
        self.step()
        self.installed.append(name)
        self.services.units[etcd_server.UNIT] = (DEBIANS,)
        self.services.enable(etcd_server.UNIT)
        self.services.restart(etcd_server.UNIT)

    def limit(self, settings: EtcdSettings) -> None:
        self.step()
        self.limited.append(settings.prefix)

    def say(self, text: str) -> None:
        self.step()
        self.told.append(text)

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def status(self) -> dict[str, Any]:
        self.step()
        if not self.services.active(UNIT):
            raise Unavailable("docker-flannel does not answer")
        etcd = self.lease is None or self.lease["source"] == "etcd"
        return {
            "lease": self.lease,
            "phase": self.phase,
            "note": "",
            "problems": self.problems,
            "networks": self.networks,
            "overlay": {"public_ip": str(IP), "mac": MAC} if etcd else None,
            "peers": [],
        }

    # --- the service ---

    def variables(self) -> Mapping[str, str]:
        """Return what the settings file sets."""
        lines = self.settings.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def _started(self, unit: str) -> None:
        if unit == etcd_server.UNIT:
            if self.place.environment.exists():
                self.place.own_data.mkdir(parents=True, exist_ok=True)
            return
        self.lease = {"subnet": "10.2.0.0/20", "network": "10.2.0.0/16", "source": "standalone"}
        if "FLANNELD_ETCD_ENDPOINTS" in self.variables():
            if self.breaks:
                raise self.breaks
            config = json.loads(self.registry.values()[config_key(PREFIX)])
            subnet = next(IPv4Network(config["Network"]).subnets(new_prefix=config["SubnetLen"]))
            key = f"{lease_range(PREFIX)}/{lease_key(subnet)}"
            self.registry.put_if(key, lease_value(IP, "vxlan", 1, MAC), 0)
            self.lease = {"subnet": str(subnet), "network": config["Network"], "source": "etcd"}

    def standing(self) -> dict[str, object]:
        """Return all that is left on the machine and in etcd."""
        files = {str(f.relative_to(self.folder)): f.read_text() for f in self.folder.rglob("*")
                 if f.is_file() and f.suffix not in (".pem", ".key")}  # fmt: skip
        return {
            "files": files,
            "keys": self.registry.values(),
            "running": set(self.services.running),
            "at boot": set(self.services.at_boot),
            "lease": self.lease,
        }


class _Stepping:
    """Services whose every call is a step of the world's."""

    def __init__(self, services: FakeServices, step: Callable[[], None]) -> None:
        self._services, self._step = services, step

    def __getattr__(self, name: str) -> object:
        self._step()
        return getattr(self._services, name)
