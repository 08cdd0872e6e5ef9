"""Reads and writes settings under /proc/sys/net, and notices that somebody changed them.

The kernel does not report most changes. Reading one takes some 5 µs, so all are polled.
"""

from __future__ import annotations

import os
from pathlib import Path

from driver.model.objects import Sysctl

# a managed plugin's own /proc/sys is read-only
ROOT = next(filter(Path.exists, map(Path, ("/host/proc/sys/net", "/proc/sys/net"))))
_LONGEST = 64


class Sysctls:
    """The settings of the host, each with the value last read or written here."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}  # by file

    def read(self, setting: Sysctl) -> str:
        """Return a setting's value; the wanted one where the kernel has no such setting."""
        file = _file(setting)
        value = _read(file)
        if value is None:
            return setting.value
        self._seen[file] = value
        return value

    def write(self, setting: Sysctl) -> None:
        """Set it, unless it has the value or the kernel has no such setting, as without IPv6.

        Errors: OSError.
        """
        if self.read(setting) != setting.value:
            file = _file(setting)
            Path(file).write_text(setting.value)
            self._seen[file] = setting.value

    def disturbed(self) -> bool:
        """Whether somebody changed one of them. Settings of links that are gone are forgotten."""
        for file, value in list(self._seen.items()):
            now = _read(file)
            if now is None:
                self._seen.pop(file, None)
            elif now != value:
                return True
        return False


def _file(setting: Sysctl) -> str:
    return f"{ROOT}/{setting.family}/conf/{setting.link}/{setting.name}"


def _read(file: str) -> str | None:
    try:
        found = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(found, _LONGEST).decode().strip()
    except OSError:  # its link has just gone
        return None
    finally:
        os.close(found)
