"""Passes: make the host match the state, whatever it has now.

Start, timer and events ask for them. They are the slow path: they look at everything.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from driver.core import misfits
from driver.core.adoption import Adopted
from driver.core.contention import Contention
from driver.core.dataplane import Dataplane
from driver.core.desire import awaited, desire, gone, left_alone, stale
from driver.core.edit import Edit
from driver.core.takeover import Takeover
from driver.core.unknown import Seen, unknown_objects
from driver.errors import FlannelError
from driver.model.facts import Facts
from driver.model.identity import Key
from driver.model.interfaces import Journal, LeaseStatus, Source, Survey
from driver.model.objects import Plan, PortSocket, diff, noun
from driver.model.records import replace

log = logging.getLogger(__name__)

SOON_S = 2.0
KEPT = 20  # reports


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass did. `at`: Unix time, seconds; empty tuples if all was well.

    `routine`: it only repaired once more what something else keeps undoing.
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
    touched = (*plan.new(), *plan.remove)
    kinds = Counter(noun(type(item)) for item in touched)
    return tuple(f"{count} {kind}" for kind, count in sorted(kinds.items()))


class History:
    """The last pass, and the latest ones that repaired, adopted or dropped something."""

    def __init__(self) -> None:
        self.last: Report | None = None
        self.reports: deque[Report] = deque(maxlen=KEPT)

    def note(self, report: Report, contended: tuple[str, ...] = ()) -> None:
        """Keep a report, and log it if it is the first or has any news.

        `contended`: sentences on what something else keeps undoing.
        """
        before, self.last = self.last, report
        failing = bool(report.errors) and (before is None or before.errors != report.errors)
        done = bool(report.repaired or report.adopted) and not report.routine
        if done:
            self.reports.append(report)
        if failing or done or before is None:
            level = logging.WARNING if report.errors or contended else logging.INFO
            log.log(level, "pass: %s", "; ".join((str(report), *contended)))


class Passes:
    """The state, its lock, and the passes that make the host match it."""

    def __init__(
        self,
        journal: Journal,
        dataplane: Dataplane,
        survey: Survey,
        source: Source,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self.dataplane = journal, dataplane
        self.survey, self.source, self.clock = survey, source, clock
        self.state = self._found = journal.load()
        self.takeover = Takeover(survey, self.state)
        self.facts = Facts()
        self.lease_status = LeaseStatus(None, "")
        self.history = History()
        self.contention = Contention()
        self._lock = threading.Lock()
        self._awaited: frozenset[Key] = frozenset()
        self._told: Collection[str] = ()
        self.woken = threading.Event()  # a pass is asked for soon
        self.wake = self.woken.set

    def recover_lease(self) -> None:
        """Look at the host, and take its lease from there if the state is empty."""
        self.facts = self.survey.facts()
        if self.takeover.lost:
            self.state = self.takeover.recall(self.dataplane.observe(), self.facts.uplink_mtu)

    def attempt(self) -> None:
        """Make one pass; log and report whatever it raises."""
        try:
            self.converge()
        except Exception as error:  # the one catch-all: the next pass may succeed
            log.error("a pass failed", exc_info=error)
            words = f"a pass failed: {error!r}; please report what the log says"
            self.history.note(Report(self.clock(), errors=(words,)))

    def converge(self) -> Report:
        """Make one pass. It takes the lock only if there is something to do."""
        try:
            right = self._looks_right()
        except (FlannelError, OSError):
            right = False  # the pass reports why
        if right:
            self.contention.found(frozenset(), self.clock())
            self.takeover.suspects, self._awaited = frozenset(), frozenset()
            report = Report(self.clock())
        else:
            with self._lock:
                report = self._pass()
        self.history.note(report, self.contention.sentences())
        return report

    def again_s(self) -> float | None:
        """Return the seconds until a pass has to check something again, None if none has to."""
        if self.takeover.suspects or self._awaited:
            return SOON_S
        return self.contention.again_s(self.clock())

    def _looks_right(self) -> bool:
        """Compare without the lock: a change meanwhile only leads to a closer look."""
        last = self.history.last
        if last is None or last.errors or self._journal.lost():
            return False
        state, facts, seen = self.state, self.facts, self.takeover.see(self.dataplane.observe())
        return (
            self.survey.facts() == facts
            and self.source.current(state, facts) == self.lease_status
            and not any(stale(state, seen.links, seen.occupied, self.clock()))
            and not unknown_objects(state, seen)
            and not diff(left_alone(seen.have, state.lease, facts), desire(state, facts))
        )

    def _pass(self, *, adopt: bool = True) -> Report:
        """Make the host match the state; with `adopt`, first add to the state what runs unknown."""
        now, at_start = self.clock(), self.history.last is None
        try:
            facts = self.facts = self.survey.facts()
            if at_start:
                self.dataplane.resume(desire(self.state, facts))
            seen = self.takeover.see(self.dataplane.observe())
            taken = self._adopt(facts, seen) if adopt else Adopted()
            seen = seen._replace(have=left_alone(seen.have, self.state.lease, facts))
            want = desire(self.state, facts)
            plan = diff(seen.have, want | self.takeover.kept(self.state, seen, want))
        except (FlannelError, OSError) as error:
            return Report(now, errors=(str(error),))
        self._awaited = awaited(self.state, seen.links)
        plan = plan.without(gone(self.state, seen.links) | self._awaited)
        self.contention.found(plan.touched(), now)
        left = self.contention.left(plan, now) if adopt else frozenset[Key]()  # a call needs all
        errors, failed, new = self._repair(plan.without(left), now)
        if self.history.last and self.contention.failed(left):
            errors += [known for known in self.history.last.errors if known not in errors]
        done = plan.without(left | failed)
        if at_start:  # the sockets that hold ports went with the last process: that is no repair
            done = done.without(key for key in done.touched() if key[0] is PortSocket)
        adopted = tuple(taken.done)
        failures = (*taken.left, *errors)
        return Report(now, summary(done), adopted, failures, routine=not (new or adopted))

    def _adopt(self, facts: Facts, seen: Seen) -> Adopted:
        """Take over a new lease and what runs unknown; drop what two passes found stale."""
        edit = Edit(self.state, self.clock())
        edit.put(*self.takeover.recalled)
        found = self.source.current(self.state, facts)
        edit.become(found)
        taken = self.takeover.adopt(edit, seen, self.state)
        self._write(edit)
        self.takeover.written(edit.state)
        self._take_over(found)
        return taken

    def _repair(self, plan: Plan, now: float) -> tuple[list[str], frozenset[Key], bool]:
        """Apply what a pass repairs. Return the failures, what failed, and whether this is news.

        What still differs has failed: an adapter says why, but not always for which object.
        """
        errors = [*self.dataplane.take_away(plan), *self.dataplane.make(plan)]
        failed = frozenset[Key]()
        if errors:
            with suppress(FlannelError, OSError):
                have = left_alone(self.dataplane.observe(), self.state.lease, self.facts)
                after = diff(have, desire(self.state, self.facts))
                failed = plan.touched() & after.touched()
        return [str(e) for e in errors], failed, self.contention.tried(plan.touched(), failed, now)

    def _write(self, edit: Edit) -> None:
        if self._journal.lost():
            self._journal.renew(self.state)
            self.history.reports.append(Report(self.clock(), ("1 state file",)))
        put, drop = edit.rows()
        if put or drop:
            self._journal.commit(put, drop, durable=edit.durable())
        self.state = edit.state

    def _take_over(self, found: LeaseStatus) -> None:
        failed = self.source.taken_over(found)
        self.lease_status = replace(found, problems=(*found.problems, *failed))
        unfit = (*misfits.outside(self.state), *misfits.too_large(self.state))
        wrong = dict.fromkeys((*self.lease_status.problems, *unfit))
        for sentence in wrong:
            if sentence not in self._told:
                log.warning("%s", sentence)
        self._told = wrong.keys()
