"""The machine's services and packages, by `systemctl` and `apt-get`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from driver.errors import HostError, Unavailable
from driver.setup.commands import outcome, run

START_S = 120.0
INSTALL_S = 600.0
LOCK_S = 300  # another apt-get may be at work, as after the first boot
RUNNING = Path("/run/systemd/system")  # there where systemd runs the machine


class Services(Protocol):
    """The service manager. A unit is named as in "etcd.service". Errors: HostError."""

    def check(self) -> None:
        """Check that this service manager runs the machine. Errors: Unavailable."""

    def files(self, unit: str) -> tuple[Path, ...]:
        """Return the files that define a unit: its own first, then drop-ins; () if unknown."""

    def active(self, unit: str) -> bool:
        """Whether a unit runs."""

    def enabled(self, unit: str) -> bool:
        """Whether a unit starts at boot."""

    def reload(self) -> None:
        """Read all units' files again."""

    def restart(self, unit: str) -> None:
        """Start a unit, or stop and start it; return once it says that it is ready."""

    def stop(self, unit: str) -> None:
        """Stop a unit that may be stopped already."""

    def enable(self, unit: str) -> None:
        """Have a unit start at boot."""

    def disable(self, unit: str) -> None:
        """Have a unit not start at boot."""


class Packages(Protocol):
    """The package manager."""

    def install(self, name: str) -> None:
        """Install a package. Errors: HostError."""


class Systemd:
    """`systemctl`."""

    def check(self) -> None:
        """Errors: Unavailable without systemd."""
        if not RUNNING.is_dir():
            raise Unavailable(
                "systemd does not run this machine, so docker-flannel cannot start its service "
                "here: write the settings yourself and restart `docker-flannel serve`"
            )

    def files(self, unit: str) -> tuple[Path, ...]:
        """Return the unit's file and its drop-ins."""
        shown = run("systemctl", "show", "--property=FragmentPath,DropInPaths", unit)
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        own = found.get("FragmentPath", "")
        return (Path(own), *map(Path, found.get("DropInPaths", "").split())) if own else ()

    def active(self, unit: str) -> bool:
        """Whether it is active."""
        return outcome("systemctl", "is-active", "--quiet", unit)[0] == 0

    def enabled(self, unit: str) -> bool:
        """Whether it is enabled."""
        return outcome("systemctl", "is-enabled", "--quiet", unit)[0] == 0

    def reload(self) -> None:
        """Reload systemd."""
        run("systemctl", "daemon-reload")

    def restart(self, unit: str) -> None:
        """Start it anew."""
        self._do("restart", unit)

    def stop(self, unit: str) -> None:
        """Stop it."""
        self._do("stop", unit)

    def enable(self, unit: str) -> None:
        """Enable it."""
        self._do("enable", "--quiet", unit)

    def disable(self, unit: str) -> None:
        """Disable it."""
        self._do("disable", "--quiet", unit)

    def _do(self, *words: str) -> None:
        try:
            run("systemctl", *words, limit_s=START_S)
        except HostError as error:
            raise HostError(f"{error}; `journalctl -eu {words[-1]}` shows more") from None


class AptGet:
    """`apt-get`."""

    def install(self, name: str) -> None:
        """Install a package without a question."""
        quiet = ("env", "DEBIAN_FRONTEND=noninteractive")
        lock = ("-o", f"DPkg::Lock::Timeout={LOCK_S}")
        try:
            run(*quiet, "apt-get", "install", "--yes", "--quiet", *lock, name, limit_s=INSTALL_S)
        except HostError as error:
            raise HostError(
                f"the package {name} cannot be installed: {error}; install it yourself, or pass "
                "--etcd-endpoints of an etcd elsewhere"
            ) from None
