"""systemd, and the bed's systemctl in small, keep one contract."""

from __future__ import annotations

import sys

from tests.bed import Bed, Host
from tests.bed.rootfs import PROJECT
from tests.e2e.members import machine
from tests.e2e.old_host import OldHost


def keeps_the_contract(host: Host) -> None:
    """Check a machine's systemctl."""
    host.run(sys.executable, "-m", "tests.unit.setup.service_contract", cwd=PROJECT)


def test_systemctl_in_small(bed: Bed) -> None:
    keeps_the_contract(machine(bed, "h1", docker=False))


def test_systemd(bed: Bed) -> None:
    host = bed.host("booted")
    OldHost(host, etcd="", in_file=False).boot()
    version = host.run("systemctl", "--version").stdout
    assert version.startswith("systemd ")
    keeps_the_contract(host)
