"""Copies of what a step changes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from driver.errors import Conflict, HostError
from driver.setup.migration.record import Record


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/daemon.json").write_text("{}\n")
    (tmp_path / "etc/daemon.json").chmod(0o640)
    return tmp_path


def test_a_step_is_taken_back_to_the_letter(place: Path) -> None:
    old, new = place / "etc/daemon.json", place / "etc/new.conf"
    record = Record.of(place, "share")
    record.change({old: '{"bip": "10.2.1.1/26"}\n', new: "x\n"})
    assert (old.read_text(), new.read_text()) == ('{"bip": "10.2.1.1/26"}\n', "x\n")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (old, new)] == [0o640, 0o644]
    again = Record.read(place, "share")
    assert again
    again.check()
    again.restore()
    assert old.read_text() == "{}\n"
    assert not new.exists()
    again.check()  # also after it was put back: the call may have been broken off there
    again.remove()
    assert Record.read(place, "share") is None


def test_the_first_copy_stays_when_a_step_is_repeated(place: Path) -> None:
    old = place / "etc/daemon.json"
    Record.of(place, "share").change({old: "1\n"})
    Record.of(place, "share").change({old: "2\n"})
    record = Record.of(place, "share")
    record.restore()
    assert old.read_text() == "{}\n"


def test_what_somebody_changed_since_is_not_overwritten(place: Path) -> None:
    old = place / "etc/daemon.json"
    record = Record.of(place, "share")
    record.change({old: "1\n"})
    old.write_text("mine\n")
    with pytest.raises(
        Conflict, match=r"daemon.json was changed since; as it was it is in .*/share"
    ):
        record.check()
    assert old.read_text() == "mine\n"


def test_a_removal_that_was_broken_off_leaves_no_record_without_its_copies(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record.of(place, "share")
    record.change({place / "etc/daemon.json": "1\n"})
    real, gone = Path.unlink, list[Path]()

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        if gone:
            raise KeyboardInterrupt
        gone.append(path)
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        record.remove()
    assert Record.read(place, "share") is None


def test_copies_may_hold_passwords(place: Path) -> None:
    record = Record.of(place, "replace")
    record.change({place / "etc/daemon.json": "1\n"})
    assert stat.S_IMODE(record.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in record.folder.iterdir()} == {0o600}


def test_a_damaged_record_is_told(place: Path) -> None:
    Record.of(place, "share").save()
    (place / "migration/share/record.json").write_text("[")
    with pytest.raises(HostError, match=r"share/record.json cannot be read"):
        Record.read(place, "share")
