"""A stand-in for the journal, which fails and vanishes when a test wants it to."""

from __future__ import annotations

from collections.abc import Iterable

from driver.errors import FlannelError
from driver.host.journal import records
from driver.model.records import Record, State
from tests.unit.fakes import World
from tests.unit.sample import state_of


class MemoryJournal:
    """The state in a dict. `error` is what writing ends in."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.rows: dict[tuple[str, str], Record] = {}
        self.error: FlannelError | None = None
        self.gone = False  # deleted under the plugin

    def load(self) -> State:
        return state_of(*self.rows.values())

    def lost(self) -> bool:
        return self.gone

    def renew(self, state: State) -> None:
        self.rows, self.gone = {(r.kind, r.id): r for r in records(state)}, False

    def commit(self, put: Iterable[Record], drop: Iterable[Record], *, durable: bool) -> None:
        self.world.step()
        if self.error is not None:
            raise self.error
        rows = dict(self.rows)
        for record in drop:
            rows.pop((record.kind, record.id), None)
        rows.update(((record.kind, record.id), record) for record in put)
        self.rows = rows
        self.world.events.append(("journal", durable))
        self.world.step()
