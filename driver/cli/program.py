"""What commands need of rooms that they do not know."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from driver.config import Config
from driver.flannel.etcd.registry import Registry
from driver.flannel.etcd.settings import EtcdSettings


class Program(Protocol):
    """The rest of the program, as `__main__` hands it to a command."""

    @property
    def config(self) -> Config:
        """Return the settings. Errors: BadRequest."""

    def serve(self) -> None:
        """Serve until SIGTERM. Errors: Conflict when another instance is at work; HostError."""

    def registry(self, settings: EtcdSettings) -> Registry:
        """Return a client of etcd."""

    def backup(self, file: Path) -> None:
        """Copy the state to a file. Errors: StoreError."""

    def restore(self, file: Path) -> Path | None:
        """Replace the state by such a copy; return where the old state is now, if there was one.

        Errors: Conflict while the plugin runs; StoreError.
        """
