"""Changes: edit the state, apply the difference between what old and new state want, commit.

This is the fast path for Docker's calls and for news of peers; a pass is the slow one. Rows are
committed last: an earlier crash leaves at worst unowned objects, which the next pass removes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network
from typing import TypeVar

from driver.core.dataplane import first, steps
from driver.core.desire import desire, in_sandboxes, surely_dead
from driver.core.edit import Edit
from driver.core.passes import Passes, summary
from driver.core.unknown import BELONGINGS, belongings
from driver.errors import BadRequest, Conflict, Exhausted, FlannelError, StoreError
from driver.model.objects import Kinds, Plan, diff
from driver.model.records import Endpoint, Network, Peer, State, short

log = logging.getLogger(__name__)

Done = TypeVar("Done")


class Reconciler(Passes):
    """All that changes the state or the host: calls, news of peers, and passes."""

    @contextmanager
    def edit(self) -> Iterator[Edit]:
        """Make one change; after the block it is on the host and on disk, or nowhere.

        Errors: FlannelError.
        """
        with self._lock:
            edit = Edit(self.state, self.clock(), self._found)
            yield edit
            self._carry_out(edit)

    def retry(self, act: Callable[[], Done], wanted: IPv4Interface | None = None) -> Done:
        """Call `act`; after a conflict, drop endpoints that certainly died and call it again.

        With its own IPAM, Docker never reports the endpoints it lost in a crash, and at once
        restarts their containers with the same addresses and ports. With ours, it does not repeat
        what it reported while this plugin was away. `wanted`: an address it gave to another
        endpoint.
        """
        try:
            return act()
        except (Conflict, Exhausted):
            with self.edit() as edit:
                dead = surely_dead(edit.state, self.survey.links(), self._found, wanted)
                for endpoint in dead:
                    log.info("endpoint %s has no sandbox any more: dropped", short(endpoint.id))
                    edit.drop(endpoint)
            if not dead:
                raise
            return act()

    def peers_changed(self) -> None:
        """Take over at once what the lease's source reports about peers.

        Anything else, and any failure, is left to a pass, which logs it.
        """
        with self._lock:
            if self.history.last is None:
                return  # the first pass is to come
            edit = Edit(self.state, self.clock())
            found = self.source.current(self.state, self.facts)
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
            self.wake()

    def remove_unknown(self, owner: str, kinds: Kinds = BELONGINGS) -> None:
        """Remove from the host an endpoint or network that the state does not know."""
        with self._lock:
            seen = self.takeover.see(self.dataplane.observe(BELONGINGS))
            self._apply(belongings(seen, owner).only(kinds))

    def set_sandbox_addresses(self, host_ends: frozenset[str]) -> None:
        """Set lease addresses in sandboxes, now that Docker may have moved interfaces there.

        It takes no lock, since it changes no state. A failure is left to a pass, which logs it: the
        container starts anyway.
        """
        wanted = tuple(t for t in in_sandboxes(self.state) if t.link in host_ends)
        if errors := self.dataplane.make(Plan(add=wanted)):
            log.debug("left to the next pass: %s", errors)
            self.wake()

    def docker_restarted(self) -> None:
        """Treat all calls that have not led to a container yet as broken off."""
        self._found = self.state

    def committed(self) -> State:
        """Return the state once no call is changing it."""
        with self._lock:
            return self.state

    def used_prefixes(self) -> dict[IPv4Network, str]:
        """Return the prefixes no new network may get, each with the link that has it, or "".

        They are those of others and of unknown bridges.
        """
        self.facts = self.survey.facts()
        used = (*self.facts.onlink, *self.takeover.blocks)
        return {**dict.fromkeys(used, ""), **dict(self.facts.holders)}

    def _carry_out(self, edit: Edit) -> None:
        if edit.adds():
            self.survey.docker_acts()
        plan = self._difference(edit)
        for step in steps(plan):
            self._make(step)
        if edit.shared():
            self.wake()  # only a pass makes what all networks and peers share
        try:
            self._write(edit)
        except StoreError:
            self._undo(plan)
            raise

    def _difference(self, edit: Edit) -> Plan:
        scope = edit.touched(Network), edit.touched(Endpoint), edit.touched(Peer)
        old, new = (
            desire(state, self.facts, *scope, shared=edit.shared())
            for state in (self.state, edit.state)
        )
        return diff(old, new)

    def _make(self, plan: Plan) -> None:
        errors = self._apply(plan)
        if errors and not any(isinstance(e, BadRequest | Conflict) for e in errors):
            self._pass(adopt=False)  # drift may have taken away what the plan builds on
            errors = self._apply(plan)
        if errors:
            self._undo(plan)
            raise first(errors)

    def _apply(self, plan: Plan) -> list[FlannelError]:
        """Apply a plan. Return the failures to make something.

        A failed removal is left to the next pass: a container must be able to end.
        """
        if plan.remove:
            self.takeover.note_removed(plan)
        for error in self.dataplane.take_away(plan):
            log.warning("not removed, the next pass tries again: %s", error)
            self.wake()
        return self.dataplane.make(plan)

    def _undo(self, plan: Plan) -> None:
        for error in self._apply(plan.inverse()):
            log.warning("a change could not be undone, the next pass tries again: %s", error)
        self.wake()
