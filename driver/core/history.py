"""What the passes did: kept for the status, and logged."""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass

from driver.model.objects import Plan, noun

log = logging.getLogger(__name__)

KEPT = 20


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass did. `at`: Unix time, seconds; empty tuples when all was well.

    `routine`: one more repair of what something else undoes again and again.
    """

    at: float
    repaired: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    routine: bool = False

    def __str__(self) -> str:
        parts = [f"repaired {', '.join(self.repaired)}"] if self.repaired else []
        parts += self.adopted + self.errors
        return "; ".join(parts) or "all as it should be"


def summary(plan: Plan) -> tuple[str, ...]:
    """Count what a plan touches, by kind."""
    touched = (*plan.add, *plan.remove, *(new for _, new in plan.change))
    kinds = Counter(type(item).__name__ for item in touched)
    return tuple(f"{count} {noun(kind)}" for kind, count in sorted(kinds.items()))


class History:
    """The last pass, and the last ones that repaired, adopted or dropped something."""

    def __init__(self) -> None:
        self.last: Report | None = None
        self.reports: deque[Report] = deque(maxlen=KEPT)

    def note(self, report: Report, contended: tuple[str, ...] = ()) -> None:
        """Keep a report, and log it if it is the first one or has anything new.

        `contended`: sentences on what something else undoes again and again.
        """
        before, self.last = self.last, report
        failing = bool(report.errors) and (before is None or before.errors != report.errors)
        done = bool(report.repaired or report.adopted) and not report.routine
        if done:
            self.reports.append(report)
        if failing or done or before is None:
            level = logging.WARNING if report.errors or contended else logging.INFO
            log.log(level, "pass: %s", "; ".join((str(report), *contended)))
