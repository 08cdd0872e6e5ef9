"""The state file is deleted, cut, replaced and copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from driver.__main__ import main
from driver.errors import StoreError
from driver.host.journal import SqliteJournal, copy
from driver.host.lock import Lock
from tests.unit.journal_files import make_garbage, written
from tests.unit.sample import LEASE, RECORDS, endpoint, network, state_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


def rm_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def rm_file(path: Path) -> None:
    path.unlink()


def rm_beside(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def cut(path: Path) -> None:
    path.write_bytes(b"")


def replace_file(path: Path) -> None:
    other = path.with_name("other")
    written(other, network()).close_alone()
    other.replace(path)


@pytest.mark.parametrize("loss", [rm_folder, rm_file, rm_beside, cut, replace_file])
def test_a_file_that_is_lost_is_noticed_and_written_anew(
    path: Path, loss: Callable[[Path], None]
) -> None:
    store = written(path, *RECORDS)
    assert not store.lost()
    loss(path)
    assert store.lost()
    store.renew(state_of(*RECORDS))
    assert not store.lost()
    late = endpoint("9" * 64, "10.2.3.9/27")
    store.commit([late], [], durable=False)
    assert SqliteJournal(path).load() == state_of(*RECORDS, late)
    assert path.stat().st_mode & 0o777 == 0o600


def test_anothers_file_in_its_place_is_kept_beside(path: Path) -> None:
    store = written(path, LEASE)
    replace_file(path)
    store.renew(state_of(LEASE))
    assert SqliteJournal(path).load() == state_of(LEASE)
    assert SqliteJournal(path.with_name("state.db.found")).load() == state_of(network())


def test_a_copy_of_the_folder_made_meanwhile_can_be_used(path: Path, tmp_path: Path) -> None:
    store = written(path, *RECORDS)
    shutil.copytree(path.parent, tmp_path / "copied")
    store.commit([], [LEASE], durable=False)
    assert SqliteJournal(tmp_path / "copied" / path.name).load() == state_of(*RECORDS)


def test_a_copy_is_one_file_and_is_checked(path: Path, tmp_path: Path) -> None:
    written(path, *RECORDS)
    target = tmp_path / "copied.db"
    copy(path, target)
    alone = tmp_path / "alone.db"
    alone.write_bytes(target.read_bytes())
    assert SqliteJournal(alone).load() == state_of(*RECORDS)
    before = target.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    for bad in (path.with_name("absent"), tmp_path, empty(tmp_path), garbage(tmp_path)):
        with pytest.raises(StoreError):
            copy(bad, target)
    assert target.read_bytes() == before, "a bad one took the place of a good one"
    assert {p.name for p in tmp_path.glob("copied.db*")} == {"copied.db"}


def empty(folder: Path) -> Path:
    (folder / "empty").touch()
    return folder / "empty"


def garbage(folder: Path) -> Path:
    make_garbage(folder / "garbage")
    return folder / "garbage"


def test_a_cut_file_is_refused_before_anything_is_written(path: Path) -> None:
    written(path, *RECORDS).close_alone()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 4096])
    before = path.read_bytes()
    with pytest.raises(StoreError, match="docker-flannel restore FILE"):
        SqliteJournal(path).load()
    assert path.read_bytes() == before


def cli(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    code = main([str(word) for word in words])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_backup_and_restore_as_commands(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, kept = written(path, *RECORDS), tmp_path / "kept"
    where = ("--state-dir", path.parent)
    assert cli(capsys, "backup", kept, *where) == (0, "")
    store.commit([], [LEASE], durable=True)
    lock = Lock(path.parent)
    lock.take()
    code, said = cli(capsys, "restore", kept, *where)
    assert (code, "stop it first" in said) == (1, True)
    os.close(lock._held)
    store.close()
    code, said = cli(capsys, "restore", kept, *where)
    assert (code, said) == (0, f"restored; what was there before is {path}.before-restore\n")
    assert SqliteJournal(path).load() == state_of(*RECORDS)
    assert SqliteJournal(Path(f"{path}.before-restore")).load().lease is None
