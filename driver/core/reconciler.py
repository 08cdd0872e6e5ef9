"""The one way a change is made: edit the state, apply the difference, commit, answer.

A Docker call, or news of peers, takes the fast path: the difference between what the old and the
new state desire. Boot, timer and events take the slow path, a pass: the difference between what
the host has and what the state desires. Both end in the same `apply`. Rows are committed last: a
crash before leaves at worst unowned objects on the host, which the next pass sweeps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from driver.core.adoption import Taken
from driver.core.contention import Contention
from driver.core.dataplane import Dataplane, first, steps
from driver.core.desire import awaited, desire, gone, in_sandboxes, left_alone, stale
from driver.core.edit import Edit
from driver.core.history import History
from driver.core.report import Report, summary
from driver.core.takeover import Takeover
from driver.core.unknown import BELONGINGS, Seen, belongings, unknown_objects
from driver.errors import BadRequest, Conflict, FlannelError, StoreError
from driver.model.facts import Facts
from driver.model.interfaces import Journal, LeaseStatus, Source, Survey
from driver.model.objects import Key, Kinds, Plan, PortSocket, diff
from driver.model.records import Endpoint, Network, Peer, State, replace

log = logging.getLogger(__name__)

SOON_S = 2.0


class Reconciler:
    """The state, its lock, and the passes."""

    def __init__(
        self,
        journal: Journal,
        dataplane: Dataplane,
        survey: Survey,
        leases: Source,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.dataplane = dataplane
        self._journal, self._survey, self._leases = journal, survey, leases
        self.clock = clock
        self.require_ipam = False  # refuse networks that Docker's own IPAM put outside the lease
        self.shown: Callable[[], Iterable[str]] = tuple  # what everybody sees and should not
        self.warnings: Callable[[Facts], Iterable[str]] = lambda _facts: ()
        self.state = self._found = journal.load()
        self.takeover = Takeover(survey, self.state)
        self.facts = Facts()
        self.lease_status = LeaseStatus(None, "")
        self.history = History()
        self._lock = threading.Lock()
        self._awaited: frozenset[Key] = frozenset()
        self.contention = Contention()
        self.woken = threading.Event()  # a pass is asked for soon
        self.wake = self.woken.set

    @contextmanager
    def edit(self) -> Iterator[Edit]:
        """Make one change; at the end of the block it is on the host and on disk, or nowhere.

        Errors: FlannelError.
        """
        with self._lock:
            edit = Edit(self.state, self.clock(), self._found)
            yield edit
            self._carry_out(edit)

    def _carry_out(self, edit: Edit) -> None:
        if edit.adds():
            self._survey.docker_acts()
        plan = self._difference(edit)
        for step in steps(plan):
            self._make(step)
        if bool(edit.state.networks) != bool(self.state.networks):
            self.woken.set()  # what all networks share with the peers is a pass's to make
        try:
            self._write(edit)
        except StoreError:
            self._undo(plan)
            raise

    def _make(self, plan: Plan) -> None:
        errors = self._apply(plan)
        if errors and not any(isinstance(e, BadRequest | Conflict) for e in errors):
            self._pass(adopt=False)  # drift may have taken away what the plan builds on
            errors = self._apply(plan)
        if errors:
            self._undo(plan)
            raise first(errors)

    def peers_changed(self) -> None:
        """Take over at once what the lease's source says of peers, by the difference as well.

        All else, and what fails, is left to a pass, which tells of it.
        """
        with self._lock:
            if self.history.last is None:
                return  # the first pass is to come
            edit = Edit(self.state, self.clock())
            found = self._leases.current(self.state, self.facts)
            edit.become(found)
            plan = self._difference(edit)
            try:
                if not edit.moved() and not self._apply(plan):
                    self._write(edit)
                    self._take_over(found)
                    if plan:
                        log.info("peers: %s", ", ".join(summary(plan)))
                    return
            except StoreError as error:
                log.debug("left to the next pass: %s", error)
            self.woken.set()

    def _difference(self, edit: Edit) -> Plan:
        scope = edit.touched(Network), edit.touched(Endpoint), edit.touched(Peer)
        return diff(desire(self.state, self.facts, *scope), desire(edit.state, self.facts, *scope))

    def _write(self, edit: Edit) -> None:
        if self._journal.lost():
            self._journal.renew(self.state)
            self.history.reports.append(Report(self.clock(), ("1 state file",), (), ()))
        put, drop = edit.rows()
        if put or drop:
            self._journal.commit(put, drop, durable=edit.durable())
        self.state = edit.state

    def _apply(self, plan: Plan) -> list[FlannelError]:
        """Carry a plan out; give the failures of what was to be made.

        What cannot be taken away is left to the next pass: it must not fail a container's end.
        """
        self.takeover.note_removed(plan)
        for error in self.dataplane.take_away(plan):
            log.warning("left to the next pass: %s", error)
            self.woken.set()
        return self.dataplane.make(plan)

    def _undo(self, plan: Plan) -> None:
        for error in self._apply(plan.inverse()):
            log.warning("undo: %s", error)
        self.woken.set()

    def docker_restarted(self) -> None:
        """Take all calls that have not led to a container yet for such that broke off."""
        self._found = self.state

    def links(self) -> frozenset[str]:
        """List our links by name, both ends of veth pairs, in the host's namespace."""
        return self._survey.links()

    def set_sandbox_addresses(self, host_ends: frozenset[str]) -> None:
        """Set lease addresses in sandboxes, now that Docker may have put interfaces there.

        It takes no lock, for it changes no state. What fails is left to a pass, which tells it: a
        container starts all the same.
        """
        wanted = tuple(t for t in in_sandboxes(self.state) if t.link in host_ends)
        errors = self.dataplane.make(Plan(add=wanted))
        if errors:
            log.debug("left to the next pass: %s", errors)
            self.woken.set()

    def remove_unknown(self, owner: str, kinds: Kinds = BELONGINGS) -> None:
        """Take away what the host has of an endpoint or network that the state does not know."""
        with self._lock:
            seen = self.takeover.see(self.dataplane.observe(BELONGINGS))
            self._apply(belongings(seen, owner).only(kinds))

    def recover_lease(self) -> None:
        """Take this host's place in the overlay from the host itself, if the state is empty."""
        found = self.takeover.recall(self.dataplane.observe(), self.survey().uplink_mtu)
        self.state = found or self.state

    def survey(self) -> Facts:
        """Look at the host anew."""
        self.facts = self._survey.facts()
        return self.facts

    def committed(self) -> State:
        """Return the state as it is when no call is at work on it."""
        with self._lock:
            return self.state

    def converge(self) -> Report:
        """Make one pass. It takes the writer's lock only if something is to be done."""
        try:
            right = self._looks_right()
        except (FlannelError, OSError):
            right = False  # the pass tells why
        if right:
            self.contention.found(frozenset(), self.clock())
            self.takeover.suspects, self._awaited = frozenset(), frozenset()
            report = Report(self.clock(), (), (), ())
        else:
            with self._lock:
                report = self._pass()
        self.history.note(report, self.contention.sentences())
        return report

    def attempt(self) -> None:
        """Make one pass, and outlive whatever happens in it."""
        try:
            self.converge()
        except Exception as error:  # the one catch-all: the next pass may succeed
            log.error("a pass failed", exc_info=error)
            self.history.note(Report(self.clock(), (), (), (f"a pass failed: {error!r}",)))

    def _looks_right(self) -> bool:
        """Compare without the lock; what changes meanwhile only makes it look again."""
        state, facts, seen = self.state, self.facts, self.takeover.see(self.dataplane.observe())
        return (
            self.history.last is not None
            and not self.history.last.errors
            and not self._journal.lost()
            and self._survey.facts() == facts
            and self._leases.current(state, facts) == self.lease_status
            and not any(stale(state, seen.links, seen.occupied, self.clock()))
            and not unknown_objects(state, seen)
            and not diff(left_alone(seen.have, state.lease, facts), desire(state, facts))
        )

    def _pass(self, *, adopt: bool = True) -> Report:
        """Bring the host to what the state desires, and with `adopt` the state to what is alive."""
        now, at_start = self.clock(), self.history.last is None
        try:
            facts = self.survey()
            if at_start:
                self.dataplane.resume(desire(self.state, facts))
            seen = self.takeover.see(self.dataplane.observe())
            taken = self._adopt(facts, seen) if adopt else Taken()
            seen = seen._replace(have=left_alone(seen.have, self.state.lease, facts))
            want = desire(self.state, facts)
            plan = diff(seen.have, want | self.takeover.kept(self.state, seen, want))
        except (FlannelError, OSError) as error:
            return Report(now, (), (), (str(error),))
        self._awaited = awaited(self.state, seen.links)
        plan = plan.without(gone(self.state, seen.links) | self._awaited)
        self.contention.found(plan.touched(), now)
        left = self.contention.left(plan, now) if adopt else frozenset[Key]()  # a call needs all
        errors, failed, new = self._repair(plan.without(left), now)
        if self.history.last and self.contention.failed(left):
            errors += [told for told in self.history.last.errors if told not in errors]
        done = plan.without(left | failed)
        if at_start:  # the sockets that hold ports went with the last process: that is no repair
            done = done.without(key for key in done.touched() if key[0] == PortSocket.__name__)
        told = tuple(taken.told)
        return Report(now, summary(done), told, (*taken.left, *errors), routine=not (new or told))

    def _repair(self, plan: Plan, now: float) -> tuple[list[str], frozenset[Key], bool]:
        """Carry out what a pass repairs. Return failures, what failed, and whether it is news.

        What failed is what still differs: an adapter tells why, but not always of which object.
        """
        errors = [*self.dataplane.take_away(plan), *self.dataplane.make(plan)]
        failed = frozenset[Key]()
        if errors:
            with suppress(FlannelError, OSError):
                have = left_alone(self.dataplane.observe(), self.state.lease, self.facts)
                after = diff(have, desire(self.state, self.facts))
                failed = plan.touched() & after.touched()
        return [str(e) for e in errors], failed, self.contention.tried(plan.touched(), failed, now)

    def _adopt(self, facts: Facts, seen: Seen) -> Taken:
        """Take over a new lease and what runs unknown, and drop what two passes found dead."""
        edit = Edit(self.state, self.clock())
        self.takeover.begin(edit)
        found = self._leases.current(self.state, facts)
        edit.become(found)
        taken = self.takeover.adopt(edit, seen, self.state)
        self._write(edit)
        self.takeover.written(edit.state)
        self._take_over(found)
        return taken

    def _take_over(self, found: LeaseStatus) -> None:
        failed = self._leases.taken_over(found)
        self.lease_status = replace(found, problems=(*found.problems, *failed))

    def again_s(self) -> float | None:
        """Return in how many seconds the next pass has something to make sure of, None: nothing."""
        if self.takeover.suspects or self._awaited:
            return SOON_S
        return self.contention.again_s(self.clock())
