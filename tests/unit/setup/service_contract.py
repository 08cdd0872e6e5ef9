"""The contract of `services.Services`: for the fake, systemctl in small, and systemd.

As a program it checks the machine's `systemctl`; it needs root, and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from driver.errors import HostError
from driver.setup.services import Services, Systemd

UNIT = "docker-flannel-contract.service"
FOLDER = Path("/etc/systemd/system")
TEXT = "[Service]\nType=exec\nExecStart=/bin/sleep 1000000\n[Install]\nWantedBy=multi-user.target\n"


def check_services(services: Services, write: Callable[[Path, str], None]) -> None:
    """Check a service manager that does not know `UNIT`; `write` writes a file of a unit."""
    services.check()
    assert services.files(UNIT) == ()
    assert not services.active(UNIT)
    with pytest.raises(HostError, match=UNIT):
        services.restart(UNIT)
    write(FOLDER / UNIT, TEXT)
    services.reload()
    assert services.files(UNIT) == (FOLDER / UNIT,)
    assert not services.active(UNIT)
    assert not services.enabled(UNIT)
    services.restart(UNIT)
    assert services.active(UNIT)
    services.restart(UNIT)
    assert services.active(UNIT)
    drop_in = FOLDER / f"{UNIT}.d/more.conf"
    write(drop_in, "[Unit]\nDescription=more\n")
    services.reload()
    assert services.files(UNIT) == (FOLDER / UNIT, drop_in)
    for _ in range(2):
        services.enable(UNIT)
        assert services.enabled(UNIT)
    for _ in range(2):
        services.stop(UNIT)
        assert not services.active(UNIT)
    assert services.enabled(UNIT)
    for _ in range(2):
        services.disable(UNIT)
        assert not services.enabled(UNIT)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


if __name__ == "__main__":
    try:
        check_services(Systemd(), _write)
    finally:
        (FOLDER / f"{UNIT}.d/more.conf").unlink(missing_ok=True)
        if (FOLDER / f"{UNIT}.d").exists():
            (FOLDER / f"{UNIT}.d").rmdir()
        (FOLDER / UNIT).unlink(missing_ok=True)
        Systemd().reload()
