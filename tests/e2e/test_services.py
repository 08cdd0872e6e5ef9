"""The bed's systemctl in small keeps the contract that systemd keeps."""

from __future__ import annotations

import sys

from tests.bed import Bed
from tests.bed.rootfs import PROJECT
from tests.e2e.members import machine


def test_systemctl_in_small_keeps_the_contract(bed: Bed) -> None:
    host = machine(bed, "h1", docker=False)
    host.run(sys.executable, "-m", "tests.unit.setup.service_contract", cwd=PROJECT)
