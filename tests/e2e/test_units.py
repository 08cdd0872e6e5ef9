"""The units and drop-ins, as systemd reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.bed.rootfs import PROJECT

PACKAGING = PROJECT / "packaging"
UNITS = sorted(
    file
    for folder in (PACKAGING, PACKAGING / "examples")
    for file in folder.iterdir()
    if file.suffix in {".service", ".socket", ".timer", ".path"}
)
DROP_INS = {"10-after-etcd.conf": "docker-flannel.service"}
# how exposed a service is, of a hundred, by systemd's count; less is better, more needs a reason
EXPOSURE = {"docker-flannel.service": 34, "docker-flannel-standin.service": 13}
# in a mount namespace of its own, with a program where a unit has ours
VERIFY = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /opt
for program in $(sed -n 's|^Exec[A-Za-z]*=[-+@:!]*\(/opt/[^ ]*\).*|\1|p' "$1"/*.service); do
    install -D /bin/true "$program"
done
mount -t tmpfs tmpfs /etc/systemd/system
cp "$1"/*.service "$1"/examples/*.service /etc/systemd/system
[ -z "$3" ] || install -D -m 644 -t "/etc/systemd/system/$2.d" "$1/examples/$3"
systemd-analyze verify --man=no --recursive-errors=no "/etc/systemd/system/$2"
"""


def told(unit: str, drop_in: str = "") -> tuple[int, str]:
    """Return the exit status and the words of `systemd-analyze verify` on an installed unit."""
    words = ("unshare", "-m", "sh", "-c", VERIFY, "sh", PACKAGING, unit, drop_in)
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("unit", [file.name for file in UNITS])
def test_systemd_takes_a_unit(unit: str) -> None:
    assert told(unit) == (0, "")


def test_systemd_takes_a_drop_in() -> None:
    assert {file.name for file in (PACKAGING / "examples").glob("*.conf")} == {*DROP_INS}
    for name, unit in DROP_INS.items():
        assert told(unit, name) == (0, "")


def exposed(unit: Path, most: int) -> bool:
    """Whether a service is more exposed than that."""
    ask = ("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={most}")
    ran = subprocess.run([*ask, unit], capture_output=True, text=True, check=False, timeout=60)
    assert "Overall exposure level" in ran.stdout, ran.stderr
    return ran.returncode != 0


def test_a_service_is_as_exposed_as_it_has_to_be() -> None:
    services = {file.name: file for file in UNITS if file.suffix == ".service"}
    assert {name for name, file in services.items() if file.parent == PACKAGING} == {*EXPOSURE}
    for name, most in EXPOSURE.items():
        assert not exposed(services[name], most)
        assert exposed(services[name], most - 1), "it is less exposed now: lower the limit"
