"""Count repairs that something else undoes, and decide how long to leave such objects alone. Pure.

A repair that lasts two seconds ends the contention. Objects that isolate are repaired in every
pass, however often they are undone: while one is missing, a closed network is open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from driver.model.identity import Identified, Key
from driver.model.objects import Plan, noun, worded

MANY = 5  # repairs of one object in a row; if it does not isolate, it then waits ever longer
FIRST_S, LONGEST_S = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class _Streak:
    """Repairs of one object in a row, with the times of the first and the last, Unix seconds."""

    count: int
    first: float
    last: float
    failed: bool


class Contention:
    """The objects whose last repair has not lasted long enough yet."""

    def __init__(self) -> None:
        self._streaks: dict[Key, _Streak] = {}  # replaced, not changed: status reads it meanwhile

    def left(self, plan: Plan, now: float) -> frozenset[Key]:
        """Return what this pass leaves alone because something keeps undoing it."""
        return frozenset(key for key in plan.touched() if self._waits(key, now))

    def _waits(self, key: Key, now: float) -> bool:
        streak = self._streaks.get(key)
        if streak is None or streak.count < MANY or key[0].isolates:
            return False
        return streak.last <= now < streak.last + _pause_s(key, streak)  # clocks may jump

    def found(self, wrong: frozenset[Key], now: float) -> None:
        """Note what a pass found wrong; forget the rest whose repair has lasted."""
        self._streaks = {
            key: streak
            for key, streak in self._streaks.items()
            if key in wrong or streak.last <= now < streak.last + FIRST_S
        }

    def tried(self, keys: frozenset[Key], failed: frozenset[Key], now: float) -> bool:
        """Note what was repaired or failed. Return whether that is worth a log line.

        In contention, which may go on for hours, log lines become rarer.
        """
        new = {}
        for key in keys:
            old = self._streaks.get(key)
            count, first = (old.count + 1, old.first) if old else (1, now)
            new[key] = _Streak(count, first, now, key in failed)
        self._streaks = self._streaks | new
        return not new or any(s.count <= MANY or s.count.bit_count() == 1 for s in new.values())

    def failed(self, keys: Iterable[Key]) -> bool:
        """Whether the last repair of one of these failed."""
        return any(s.failed for s in map(self._streaks.get, keys) if s)

    def again_s(self, now: float) -> float | None:
        """Return the seconds until a pass has to look at one of them again, None if none has to."""
        ends = [s.last + _pause_s(key, s) - now for key, s in self._streaks.items()]
        return max(min(ends), 0.0) if ends else None

    def sentences(self) -> tuple[str, ...]:
        """Return what is contended, how often it was undone, and when it is put back."""
        contended = {k: s for k, s in self._streaks.items() if s.count > MANY and not s.failed}
        kinds = Counter(key[0] for key in contended)
        return tuple(
            _sentence(kind, count, {k: s for k, s in contended.items() if k[0] == kind})
            for kind, count in sorted(kinds.items(), key=lambda found: noun(found[0]))
        )


def _pause_s(key: Key, streak: _Streak) -> float:
    if key[0].isolates:
        return FIRST_S
    return min(FIRST_S * 2.0 ** max(min(streak.count, 2 * MANY) - MANY, 0), LONGEST_S)


def _sentence(kind: type[Identified], objects: int, streaks: dict[Key, _Streak]) -> str:
    key, most = max(streaks.items(), key=lambda item: item[1].count)
    what = worded(key) if objects == 1 else f"{objects} {noun(kind)}"
    span = f"{max(most.last - most.first, 1):.0f} s"
    how = "in each pass" if kind.isolates else f"after {_pause_s(key, most):.0f} s"
    return (
        f"{what}: something else has undone it {most.count - 1} times within {span}, and it is "
        f"put back {how}; find out what changes it"
    )
