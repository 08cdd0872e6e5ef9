"""What the commands need from packages that they may not import."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from driver.config import Config
from driver.docker.engine import Engine
from driver.flannel.etcd.registry import Registry
from driver.flannel.etcd.settings import EtcdSettings
from driver.model.facts import External
from driver.model.preflight import Preflight
from driver.model.records import Overlay
from driver.setup.sources import Sources


class Program(Protocol):
    """The rest of the program, as `__main__` passes it to a command. Errors: FlannelError."""

    @property
    def sources(self) -> Sources:
        """Return what sets the settings."""

    @property
    def config(self) -> Config:
        """Return the settings, checked."""

    @property
    def socket(self) -> Path:
        """Return the plugin's socket, also if another setting is bad or cannot be read."""

    @property
    def docker(self) -> Engine:
        """Return the Docker that was chosen. Errors: BadRequest if it is another host's."""

    def serve(self) -> None:
        """Serve until SIGTERM. Errors: Conflict if another instance runs."""

    def registry(self, settings: EtcdSettings) -> Registry:
        """Return a client of etcd."""

    def preflight(self, overlay: Overlay | None) -> Preflight:
        """Try what the plugin needs of this host, for this overlay if etcd has one."""

    def limit(self, settings: EtcdSettings) -> None:
        """Let etcd's users do only what they need; `settings` are those of its root."""

    def underlay(self, iface: str, public_ip: IPv4Address | None) -> External:
        """Find the interface to the other hosts; "" and None: not set."""

    def backup(self, file: Path) -> None:
        """Copy the state to a file."""

    def check_unused(self) -> None:
        """Check that no network would lose its driver. Errors: Conflict."""

    def take_down(self) -> bool:
        """Remove what the plugin made on the host; return False if the managed plugin has it."""

    def restore(self, file: Path) -> Path | None:
        """Replace the state by such a copy; return where the old state is kept, if any."""
