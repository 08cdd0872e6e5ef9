"""State files: whole ones, and one that is none."""

from __future__ import annotations

from pathlib import Path

from driver.host.journal import SqliteJournal
from driver.model.records import Record


def written(path: Path, *records: Record) -> SqliteJournal:
    store = SqliteJournal(path)
    store.commit(records, [], durable=True)
    return store


def make_garbage(path: Path) -> None:
    path.write_bytes(b"this is no database " * 100)
