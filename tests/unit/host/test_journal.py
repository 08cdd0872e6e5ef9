"""The journal on disk: what goes wrong with files, and how it is said."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driver.errors import StoreError
from driver.host.journal import VERSION, SqliteJournal, from_row, to_row
from driver.model.records import RECORD_TYPES, Record, replace
from tests.unit.journal_files import make_garbage, written
from tests.unit.sample import LEASE, NET, POOL, RECORDS, endpoint, network, state_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


def raw(path: Path, *statements: str) -> None:
    """Change the file as another program would."""
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(statement)
    db.close()


def test_the_sample_has_every_type_of_record() -> None:
    assert {type(record) for record in RECORDS} == set(RECORD_TYPES)


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: f"{r.kind}-{r.id[:12]}")
def test_every_record_comes_back_with_its_types(record: Record) -> None:
    found = from_row(record.kind, to_row(record))
    assert found == record
    assert repr(found) == repr(record), "an equal value of another type came back"
    assert hash(found) == hash(record)


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    SqliteJournal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    written(path, LEASE).close()
    raw(path, f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        SqliteJournal(path)
    assert str(caught.value) == (
        f"state file {path} has version {VERSION + 1}, newer than {VERSION}, the newest this "
        "docker-flannel knows; install the newer one again"
    )
    assert path.read_bytes() == before


def make_folder(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [make_garbage, make_folder, make_loop])
def test_a_file_that_is_no_database(path: Path, make: object) -> None:
    path.parent.mkdir()
    assert callable(make)
    make(path)
    with pytest.raises(StoreError, match=f"^state file {path} cannot be used: ") as caught:
        SqliteJournal(path)
    assert str(caught.value).endswith("then what runs is taken over from the host")


def test_a_folder_that_cannot_be_made(path: Path) -> None:
    path.parent.write_text("a file in its place")
    with pytest.raises(StoreError, match=f"^state file {path} cannot be used: .*File exists"):
        SqliteJournal(path)


def test_a_file_that_is_cut_off(path: Path) -> None:
    written(path, *RECORDS).close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=rf"^state file {path} cannot be (used|read): .*malformed"):
        SqliteJournal(path).load()


def test_a_file_without_its_table(path: Path) -> None:
    store = written(path, LEASE)
    raw(path, "DROP TABLE record")
    with pytest.raises(StoreError, match=f"^state file {path} cannot be read: no such table"):
        store.load()
    with pytest.raises(StoreError, match=f"^state file {path} cannot be written: no such table"):
        store.commit([POOL], [], durable=True)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("pool", "{"),
        ("pool", "{}"),
        ("pool", "[]"),
        ("pool", "null"),
        ("pool", "7"),
        ("pool", to_row(POOL).replace("10.2.3.0/27", "10.2.3.1/27")),
        ("pool", to_row(POOL).replace('"since"', '"newer"')),
        ("pool", to_row(POOL).replace("1700000000.0", '"soon"')),
        ("endpoint", to_row(endpoint()).replace('"ports": []', '"ports": 7')),
        ("endpoint", to_row(endpoint()).replace('"ports": []', '"ports": [7]')),
        ("hold", '{"pool": "x", "ip": "10.2.3.1", "why": "fun", "since": 1.0}'),
        ("unknown", "{}"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(path: Path, kind: str, body: str) -> None:
    store = written(path, LEASE)
    quoted = body.replace("'", "''")
    raw(path, f"INSERT INTO record VALUES ('{kind}', 'some-id', '{quoted}')")  # noqa: S608
    with pytest.raises(StoreError) as caught:
        store.load()
    assert str(caught.value).startswith(f"state file {path} has an unreadable row {kind} some-id: ")


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 100, 4200, 8400])
def test_a_full_disk_leaves_the_state_as_it_was_and_ends(path: Path, room: int) -> None:
    store = written(path, LEASE, network())
    size = path.with_name("state.db-wal").stat().st_size
    many = [endpoint(f"{i:064d}", sandbox="x" * 900) for i in range(40)]
    with full_disk(size + room), pytest.raises(StoreError) as caught:
        store.commit(many, [network()], durable=True)
    assert str(caught.value).startswith(f"state file {path} cannot be written: ")
    assert store.load() == state_of(LEASE, network())
    store.commit([POOL], [network()], durable=False)
    assert store.load() == state_of(LEASE, POOL)
    store.close()
    assert SqliteJournal(path).load() == state_of(LEASE, POOL)


def test_a_file_from_before_claims_is_read_and_an_older_version_reads_this_one(path: Path) -> None:
    store = written(path, *RECORDS)
    assert store.load() == state_of(*RECORDS)
    store.close()
    with sqlite3.connect(path) as db:  # what an older version does
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        kinds = {kind for (kind,) in db.execute("SELECT kind FROM record")}
    db.close()
    assert kinds == {cls.kind for cls in RECORD_TYPES} - {"claim"}
    raw(path, "DROP TABLE claim")
    assert SqliteJournal(path).load() == replace(state_of(*RECORDS), claims={})


def test_a_claim_in_a_pool_that_an_older_version_removed_is_forgotten(path: Path) -> None:
    written(path, *RECORDS).close()
    raw(path, f"DELETE FROM record WHERE kind = 'pool' AND id = '{POOL.id}'")  # noqa: S608
    assert not SqliteJournal(path).load().claims


def test_a_change_is_written_as_a_whole_or_not_at_all(path: Path) -> None:
    store = written(path, LEASE)
    raw(
        path,
        "CREATE TRIGGER no_pools BEFORE INSERT ON record WHEN NEW.kind = 'pool' "
        "BEGIN SELECT RAISE(ABORT, 'no pools today'); END",
    )
    with pytest.raises(StoreError, match="cannot be written: no pools today"):
        store.commit([network(), POOL], [LEASE], durable=True)
    assert store.load() == state_of(LEASE)
    store.commit([network()], [], durable=True)
    assert store.load() == state_of(LEASE, network())


def test_no_disk_at_all_for_a_new_file(path: Path) -> None:
    with full_disk(0), pytest.raises(StoreError, match=f"^state file {path} cannot be used: "):
        SqliteJournal(path)


def test_a_state_file_that_another_program_locks_for_reading_can_be_written(path: Path) -> None:
    store = written(path, LEASE)
    with sqlite3.connect(path, isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM record").fetchall()
        store.commit([network()], [], durable=True)
    reader.close()
    assert set(store.load().networks) == {NET}


def test_rows_are_plain_json(path: Path) -> None:
    written(path, POOL).close()
    with sqlite3.connect(path) as db:
        (body,) = db.execute("SELECT body FROM record WHERE kind = 'pool'").fetchone()
    db.close()
    assert '"cidr": "10.2.3.0/27"' in body
    assert "owner" not in body, "older versions could not read it"
