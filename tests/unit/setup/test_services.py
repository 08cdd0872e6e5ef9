"""The fake service manager keeps the contract of the real one."""

from __future__ import annotations

from pathlib import Path

from tests.unit.setup.fake_machine import FakeServices
from tests.unit.setup.service_contract import UNIT, check_services


def test_the_fake_keeps_the_contract() -> None:
    services = FakeServices()

    def write(file: Path, _text: str) -> None:
        services.units[UNIT] = (*services.files(UNIT), file)

    check_services(services, write)
