"""What the commands need of rooms that they do not know."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from driver.config import Config
from driver.flannel.etcd.registry import Registry
from driver.flannel.etcd.settings import EtcdSettings


class Program(Protocol):
    """The rest of the program, as `__main__` hands it to a command. Errors: FlannelError."""

    @property
    def config(self) -> Config:
        """Return the settings, checked."""

    def serve(self) -> None:
        """Serve until SIGTERM. Errors: Conflict when another instance is at work."""

    def registry(self, settings: EtcdSettings) -> Registry:
        """Return a client of etcd."""

    def backup(self, file: Path) -> None:
        """Copy the state to a file."""

    def restore(self, file: Path) -> Path | None:
        """Replace the state by such a copy; return where the old state is now, if there was one."""
