"""The journal's contract, on the fake and on the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from driver.host.journal import SqliteJournal
from driver.model.interfaces import Journal
from tests.unit.contract import check_journal
from tests.unit.fakes import FakeJournal


def memory(_folder: Path) -> Callable[[], Journal]:
    journal = FakeJournal()
    return lambda: journal


def sqlite(folder: Path) -> Callable[[], Journal]:
    opened: list[SqliteJournal] = []

    def reopen() -> SqliteJournal:
        for store in opened:
            store.close()
        opened[:] = [SqliteJournal(folder / "state.db")]
        return opened[0]

    return reopen


@pytest.mark.parametrize("kind", [memory, sqlite])
def test_journal_meets_the_contract(
    kind: Callable[[Path], Callable[[], Journal]], tmp_path: Path
) -> None:
    check_journal(kind(tmp_path))
