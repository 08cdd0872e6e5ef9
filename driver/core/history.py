"""What the passes did: kept for the status, and told in the log. Imports `report`."""

from __future__ import annotations

import logging
from collections import deque

from driver.core.report import Report

log = logging.getLogger(__name__)

KEPT = 20


class History:
    """The last pass, and the last ones that repaired or dropped something."""

    def __init__(self) -> None:
        self.last: Report | None = None
        self.reports: deque[Report] = deque(maxlen=KEPT)

    def note(self, report: Report, fought: tuple[str, ...] = ()) -> None:
        """Take note of a pass, and tell of it if it is the first one or did or found anything new.

        `fought`: sentences on what something else undoes again and again.
        """
        before, self.last = self.last, report
        failing = bool(report.errors) and (before is None or before.errors != report.errors)
        done = bool(report.repaired or report.dropped) and not report.routine
        if done:
            self.reports.append(report)
        if failing or done or before is None:
            level = logging.WARNING if report.errors or fought else logging.INFO
            log.log(level, "pass: %s", "; ".join((str(report), *fought)))
