"""What a pass did, in words. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from driver.model.objects import Plan, noun


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass did. `at`: Unix time, seconds; empty tuples when all was well.

    `routine`: one more repair in a fight that was told before.
    """

    at: float
    repaired: tuple[str, ...]
    dropped: tuple[str, ...]
    errors: tuple[str, ...]
    routine: bool = False

    def __str__(self) -> str:
        parts = [f"repaired {', '.join(self.repaired)}"] if self.repaired else []
        parts += self.dropped + self.errors
        return "; ".join(parts) or "all as it should be"


def summary(plan: Plan) -> tuple[str, ...]:
    """Count what a plan touches, by kind."""
    touched = (*plan.add, *plan.remove, *(new for _, new in plan.change))
    kinds = Counter(type(item).__name__ for item in touched)
    return tuple(f"{count} {noun(kind)}" for kind, count in sorted(kinds.items()))
