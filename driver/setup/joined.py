"""The record of what `init` and `join` changed on this host, by which `leave` puts it back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from driver.errors import HostError
from driver.files import read_file, write_file

NAME = "joined.json"
MODE = 0o600  # a password may be among the settings


@dataclass(slots=True)
class Joined:
    """What was changed.

    `written`: settings as they were written, `before`: as they were, None: not set. `files`: names
    of files beside the record. `applied`: whether the service was started with all that. `etcd`:
    whether etcd was "active" and "enabled" before `init` used it; None if `init` does not.
    `leaving`: the lease that is being given up, once `leave` has begun.
    """

    file: Path
    written: dict[str, str] = field(default_factory=dict)
    before: dict[str, str | None] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    applied: bool = False
    etcd: dict[str, bool] | None = None
    leaving: dict[str, str] | None = None

    @classmethod
    def read(cls, folder: Path) -> Joined | None:
        """Return the record in a folder, None if there is none. Errors: HostError."""
        file = folder / NAME
        try:
            return cls(file, **json.loads(read_file(file)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise HostError(
                f"{file} cannot be read: {error}; it says what `docker-flannel leave` has to put "
                "back: restore it, or put the settings back yourself and remove it"
            ) from error

    @classmethod
    def of(cls, folder: Path) -> Joined:
        """Return the record in a folder, or a new one. Errors: HostError."""
        return cls.read(folder) or cls(folder / NAME)

    def save(self) -> None:
        """Write the record. Errors: HostError."""
        fields = asdict(self)
        del fields["file"]
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.file.parent.chmod(0o700)
            write_file(self.file, json.dumps(fields, indent=1).encode(), MODE)
        except OSError as error:
            raise HostError(f"{self.file} cannot be written: {error.strerror}") from error

    def add(
        self, settings: Mapping[str, str], files: Iterable[str], now: Mapping[str, str]
    ) -> None:
        """Note what will be written, and what was set before the first time; `now` is set now."""
        for name in settings:
            self.before.setdefault(name, now.get(name))
        self.written.update(settings)
        self.files = sorted({*self.files, *files})

    def old(self, now: Mapping[str, str]) -> dict[str, str | None]:
        """Return the settings to put back: those that nobody has changed since."""
        return {n: self.before.get(n) for n, value in self.written.items() if now.get(n) == value}

    def remove(self) -> None:
        """Remove the record, and its folder if nothing else is there. Errors: HostError."""
        try:
            self.file.unlink(missing_ok=True)
            if not any(self.file.parent.iterdir()):
                self.file.parent.rmdir()
        except OSError as error:
            raise HostError(f"{self.file} cannot be removed: {error.strerror}") from error
