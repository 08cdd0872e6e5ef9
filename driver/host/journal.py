"""The journal: every record as a row of one sqlite file.

A row is (kind, id, body), the body JSON with one field per field of the record; addresses are
text. Rows are written after the kernel has been changed and before Docker gets its answer. Claims
may be lost: they are in a table of their own, and versions that do not know it read the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import sqlite3
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from driver.errors import StoreError
from driver.model.records import RECORD_TYPES, Claim, Owner, Pool, PortMapping, Record, State

log = logging.getLogger(__name__)

NAME = "state.db"
ASIDE = "before-restore"
VERSION = 1
HOW = (
    "put a copy back with `docker-flannel restore FILE`, or move it away: then what runs is taken "
    "over from the host"
)
WAIT_S = 1.0  # for another program that reads the file
COLUMNS = """(kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id))
WITHOUT ROWID"""
SCHEMA = f"CREATE TABLE record {COLUMNS}"
CLAIM_SCHEMA = f"CREATE TABLE IF NOT EXISTS claim {COLUMNS}"
ROWS = "SELECT kind, id, body FROM record UNION ALL SELECT kind, id, body FROM claim"
TYPES: dict[str, type[Record]] = {cls.kind: cls for cls in RECORD_TYPES}
HINTS = {cls: typing.get_type_hints(cls) for cls in (*RECORD_TYPES, PortMapping)}
FIELDS = {cls: [field.name for field in dataclasses.fields(cls)] for cls in RECORD_TYPES}
FIELDS[Pool].remove("owner")  # is in the id, where older versions look for it


class SqliteJournal:
    """One open journal. Calls come one at a time, from different threads."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Errors: StoreError when it cannot be read, or was written by a newer version.
        """
        self._path = path
        self._open()

    def _open(self) -> None:
        self._durable: bool | None = None  # as the last commit was
        path = self._path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=WAIT_S
            )
            self._migrate()
            self._known = self._files()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"state file {path} cannot be used: {error}; {HOW}") from error

    def _files(self) -> tuple[os.stat_result, os.stat_result]:
        """Look at the state file, and at the write-ahead log beside it."""
        return self._path.stat(), Path(f"{self._path}-wal").stat()

    def lost(self) -> bool:
        """Whether a file was removed, cut or replaced, so that nothing would be kept."""
        try:
            now, before = self._files(), self._known
        except OSError:
            return True
        shrunk = now[0].st_size < before[0].st_size  # which it never does by itself
        if shrunk or not all(map(os.path.samestat, before, now)):
            return True
        self._known = now
        return False

    def renew(self, state: State) -> None:
        """Write the whole state anew; a file that is found in its place is renamed and kept.

        Errors: StoreError.
        """
        log.warning("state file %s was removed or replaced: it is written anew", self._path)
        self.close()
        beside = Path(f"{self._path}-wal")
        try:
            if beside.exists() and os.path.samestat(beside.stat(), self._known[1]):
                beside.unlink()  # sqlite would read it into whatever file it is beside
            put_aside(self._path, "found")
        except OSError as error:
            raise StoreError(f"state file {self._path} cannot be written: {error}") from error
        self._open()
        self.commit(records(state), (), durable=True)

    def _migrate(self) -> None:
        for (found,) in self._db.execute("PRAGMA quick_check(1)"):
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StoreError(
                f"state file {self._path} has version {version}, newer than {VERSION}, the newest "
                "this docker-flannel knows; install the newer one again"
            )
        self._path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        if version == 0:
            self._db.executescript(f"BEGIN; {SCHEMA}; PRAGMA user_version = {VERSION}; COMMIT")
        self._db.execute(CLAIM_SCHEMA)

    def load(self) -> State:
        """Read all rows. Errors: StoreError naming the row that cannot be read."""
        found: dict[str, dict[str, Any]] = {kind: {} for kind in TYPES}
        try:
            rows = self._db.execute(ROWS).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"state file {self._path} cannot be read: {error}; {HOW}") from error
        for kind, row_id, body in rows:
            try:
                found[kind][row_id] = from_row(kind, body)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise StoreError(
                    f"state file {self._path} has an unreadable row {kind} {row_id}: {error}; {HOW}"
                ) from error
        return State(
            lease=found["lease"].get("own"),
            overlay=found["overlay"].get("own"),
            vtep=found["vtep"].get("own"),
            peers=found["peer"],
            pools=found["pool"],
            freed=found["freed"],
            holds=found["hold"],
            claims={i: claim for i, claim in found["claim"].items() if claim.pool in found["pool"]},
            networks=found["network"],
            endpoints=found["endpoint"],
        )

    def commit(self, put: Iterable[Record], drop: Iterable[Record], *, durable: bool) -> None:
        """Write and remove rows, all or nothing; `durable` rows survive a power cut.

        Errors: StoreError, nothing having been written.
        """
        try:
            if durable != self._durable:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._db.execute("BEGIN IMMEDIATE")
            for record in drop:
                statement = f"DELETE FROM {_table(record)} WHERE kind = ? AND id = ?"  # noqa: S608
                self._db.execute(statement, (record.kind, record.id))
            for record in put:
                statement = f"INSERT OR REPLACE INTO {_table(record)} VALUES (?, ?, ?)"  # noqa: S608
                self._db.execute(statement, (record.kind, record.id, to_row(record)))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(f"state file {self._path} cannot be written: {error}") from error

    def close_alone(self) -> None:
        """Merge the write-ahead log into the file and close it, so that it can be copied alone."""
        self._db.execute("PRAGMA journal_mode = DELETE")
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def records(state: State) -> Iterator[Record]:
    """List all that a state has."""
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Mapping):
            yield from value.values()
        elif value is not None:
            yield value


def put_aside(path: Path, name: str) -> None:
    """Rename a state file, with what belongs to it, so that another can take its place.

    Errors: OSError.
    """
    for end in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{end}").replace(f"{path}.{name}{end}")


def copy(source: Path, target: Path) -> None:
    """Copy a state file as it is at one moment, even while it is in use.

    Errors: StoreError, also where this version cannot read it; then `target` is as it was.
    """
    part = Path(f"{target}.part")
    try:
        source.stat()  # sqlite does not say why it cannot open a file
        part.unlink(missing_ok=True)
        asked = f"{source.absolute().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(asked, uri=True, timeout=WAIT_S)) as old,
            closing(sqlite3.connect(part)) as new,
        ):
            old.backup(new)
            if new.execute("PRAGMA user_version").fetchone() == (0,):
                raise sqlite3.DatabaseError("it is no state file")
        made = SqliteJournal(part)
        made.load()
        made.close_alone()
        part.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"state file {source} cannot be copied to {target}: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def restore(source: Path, target: Path) -> Path | None:
    """Replace the state by a copy; return where the old one is. No plugin may use it meanwhile.

    Errors: StoreError, and then the state is as it was.
    """
    new = target.with_name(f"{target.name}.restored")
    copy(source, new)
    there = target.exists()
    try:
        put_aside(target, ASIDE)
        new.replace(target)
    except OSError as error:
        raise StoreError(f"state file {target} cannot be replaced: {error}") from error
    return Path(f"{target}.{ASIDE}") if there else None


def _table(record: Record) -> str:
    return "claim" if isinstance(record, Claim) else "record"


def _plain(value: object) -> object:
    return dataclasses.asdict(value) if isinstance(value, PortMapping) else str(value)


_JSON = json.JSONEncoder(default=_plain)


def to_row(record: Record) -> str:
    """Write a record as JSON."""
    return _JSON.encode({name: getattr(record, name) for name in FIELDS[type(record)]})


def from_row(kind: str, body: str) -> Record:
    """Read a record from JSON. Errors: AttributeError, KeyError, TypeError, ValueError."""
    fields = json.loads(body)
    if kind == Pool.kind:
        owner = fields["id"].partition("/")[0]
        fields["owner"] = owner if owner in typing.get_args(Owner) else "ipam"
    return typing.cast(Record, _build(TYPES[kind], fields))


def _build(cls: type[Record | PortMapping], fields: dict[str, Any]) -> Record | PortMapping:
    hints = HINTS[cls]
    return cls(**{name: _reader(hints[name])(value) for name, value in fields.items()})


@functools.cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """Return a function that turns a JSON value into what a field's type says."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        some = _reader(args[0])
        return lambda value: None if value is None else some(value)
    if origin is tuple:
        item = _reader(args[0])
        return lambda value: tuple(map(item, value))
    if origin is typing.Literal:
        return functools.partial(_one_of, args)
    if hint is PortMapping:
        return functools.partial(_build, PortMapping)
    made = functools.lru_cache(hint)  # thousands of ports have few addresses
    return lambda value: value if isinstance(value, hint) else made(value)


def _one_of(allowed: tuple[Any, ...], value: Any) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(map(str, allowed))}")
    return value
