"""Which source sets a setting: option, variable, file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driver.config import SETTINGS, Config, Setting
from driver.errors import Unavailable
from driver.setup import settings_file
from driver.setup.sources import Sources

LEASE = next(s for s in SETTINGS if s.option == "--lease")
VARIABLE = LEASE.variable
IN_ORDER = settings_file.IN_ORDER


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    found = tmp_path / "flanneld", tmp_path / "docker-flannel"
    monkeypatch.setattr(settings_file, "IN_ORDER", found)
    return found


def test_the_files_are_those_of_the_unit_in_its_order() -> None:
    unit = Path(__file__).parents[3] / "packaging/docker-flannel.service"
    lines = unit.read_text().splitlines()
    assert [line for line in lines if line.startswith("EnvironmentFile=")] == [
        f"EnvironmentFile=-{path}" for path in IN_ORDER
    ]


@pytest.mark.parametrize(
    ("option", "variable", "ours", "flannelds", "found"),
    [
        ("etcd", "auto", "subnet-file", "standalone", ("etcd", "--lease")),
        (None, "etcd", "subnet-file", "standalone", ("etcd", "environment")),
        (None, "", "subnet-file", "standalone", ("subnet-file", "docker-flannel")),
        (None, None, "subnet-file", "standalone", ("subnet-file", "docker-flannel")),
        (None, None, None, "standalone", ("standalone", "flanneld")),
        (None, None, "", "standalone", ("auto", "default")),
        (None, None, None, None, ("auto", "default")),
        (None, "standalone", None, "standalone", ("standalone", "flanneld")),  # as systemd has it
        ("", None, "", "", ("auto", "default")),
    ],
)
def test_the_order(
    files: tuple[Path, Path],
    option: str | None,
    variable: str | None,
    ours: str | None,
    flannelds: str | None,
    found: tuple[str, str],
) -> None:
    for path, text in zip(files, (flannelds, ours), strict=True):
        if text is not None:
            path.write_text(f"# of {path}\n{VARIABLE}={text}\n")
    environment = {} if variable is None else {VARIABLE: variable}
    sources = Sources.read({"--lease": option}, environment)
    value, origin = sources.value(LEASE)
    assert (value, origin.rpartition("/")[2]) == found
    endpoints = {"FLANNELD_ETCD_ENDPOINTS": "http://192.0.2.1:2379"}
    assert Config.read(sources.options, sources.variables | endpoints).lease == value


def test_each_setting_can_be_in_a_file(files: tuple[Path, Path]) -> None:
    files[1].write_text("".join(f"{s.variable}=x{n}\n" for n, s in enumerate(SETTINGS)))
    sources = Sources.read({}, {})
    assert [sources.value(s) for s in SETTINGS] == [
        (f"x{n}", str(files[1])) for n in range(len(SETTINGS))
    ]


def test_what_cannot_be_read_is_a_fault_and_the_rest_is_read(files: tuple[Path, Path]) -> None:
    files[0].write_text(f"{VARIABLE}=etcd\0\n")
    files[1].write_text(f"{VARIABLE}=standalone\n")
    sources = Sources.read({}, {})
    assert sources.value(LEASE)[0] == "standalone"
    (fault,) = sources.faults
    assert fault == f"{files[0]}: it has a byte 0, so systemd does not read it"
    with pytest.raises(Unavailable, match="has a byte 0"):
        sources.check()
    files[0].unlink()
    Sources.read({}, {}).check()


def test_who_may_not_read_them_is_told_of_sudo(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    assert Sources.read({}, {}).faults == tuple(
        f"only root may read {path}: run the command with sudo" for path in files
    )


def test_a_setting_has_no_source_of_its_own_name() -> None:
    """So that "environment" and "default" cannot be mistaken for an option or a file."""
    made = Setting("--x", "X", "dflt", "")
    assert Sources({}, {"X": "1"}, {}).value(made) == ("1", "environment")
    assert Sources({}, {}, {}).value(made) == ("dflt", "default")
