"""A managed plugin's state when its folder changes while it is not running."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driver.host.journal import NAME, SqliteJournal
from driver.host.upgrade import recover, save
from driver.model.records import Record
from tests.unit.journal_files import written
from tests.unit.sample import LEASE, RECORDS, state_of

HOUR = 3600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "kept"
    made.mkdir()
    return made


def ended(tmp_path: Path, folder: Path, *records: Record) -> Path:
    """A plugin has ended, with its state in one folder."""
    state = tmp_path / "one" / NAME
    written(state, *records).close()
    save(state, folder)
    return state


def test_another_folder_gets_the_state(tmp_path: Path, folder: Path) -> None:
    ended(tmp_path, folder, *RECORDS)
    other = tmp_path / "other" / NAME
    other.parent.mkdir()
    recover(other, folder)
    assert SqliteJournal(other).load() == state_of(*RECORDS)
    assert list(folder.iterdir()) == [], "a copy is used once"


def test_another_folder_with_an_older_state_gets_it_too(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other" / NAME
    written(other, LEASE).close_alone()
    os.utime(other, (other.stat().st_mtime - HOUR,) * 2)
    ended(tmp_path, folder, *RECORDS)
    recover(other, folder)
    assert SqliteJournal(other).load() == state_of(*RECORDS)
    assert SqliteJournal(other.with_name(f"{NAME}.before-restore")).load() == state_of(LEASE)


def test_another_folder_with_a_newer_state_keeps_it(tmp_path: Path, folder: Path) -> None:
    ended(tmp_path, folder, *RECORDS)
    other = tmp_path / "other" / NAME
    written(other, LEASE).close_alone()
    os.utime(other, (other.stat().st_mtime + HOUR,) * 2)
    recover(other, folder)
    assert SqliteJournal(other).load() == state_of(LEASE)
    assert list(folder.iterdir()) == []


def test_in_the_same_folder_what_was_put_there_meanwhile_is_meant(
    tmp_path: Path, folder: Path
) -> None:
    state = ended(tmp_path, folder, *RECORDS)
    state.unlink()
    written(state, LEASE).close_alone()
    os.utime(state, (state.stat().st_mtime - HOUR,) * 2)
    recover(state, folder)
    assert SqliteJournal(state).load() == state_of(LEASE)


def test_the_service_has_no_such_folder(tmp_path: Path) -> None:
    state = ended(tmp_path, tmp_path / "absent", *RECORDS)
    state.unlink()
    recover(state, tmp_path / "absent")
    assert not state.exists()


def test_a_copy_that_cannot_be_used_stops_nothing(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "1-2.db").write_bytes(b"garbage" * 1000)
    recover(tmp_path / NAME, folder)
    assert "cannot be used" in caplog.text
