"""Makes passes: at the start, by the timer, and soon after something wakes the loop."""

from __future__ import annotations

import threading
from contextlib import suppress

from driver.core.desire import of_links
from driver.core.reconciler import Reconciler
from driver.errors import FlannelError

PASS_S = 30.0
TICK_S = 0.5
DEBOUNCE_S = 0.2


class Loop:
    """Makes the reconciler's passes."""

    def __init__(self, core: Reconciler) -> None:
        self._core = core

    def boot(self) -> None:
        """Make the first pass, then take over peers that became known meanwhile."""
        with suppress(FlannelError, OSError):  # the pass reports why
            self._core.recover_lease()
        with suppress(FlannelError, OSError):
            self._core.source.begin(self._core.state, self._core.facts)
        self._core.attempt()
        self._core.peers_changed()

    def links_changed(self, names: frozenset[str]) -> None:
        """Wake the loop if a link that should exist is not as it should be; "" means any link."""
        state = self._core.state
        ours = {n.bridge for n in state.networks.values()}
        ours |= {e.host_end for e in state.endpoints.values()}
        mine = names & ours
        if "" in names or (mine and self._drifted(mine)):
            self._core.wake()

    def _drifted(self, links: frozenset[str]) -> bool:
        """Whether links differ from what the state wants, once no call is changing them.

        The kernel also reports our own changes; these must wake no pass.
        """
        try:
            wanted = of_links(self._core.committed(), self._core.facts, links)
            return self._core.survey.look(links) != wanted
        except OSError:
            return True  # the pass reports why

    def _disturbed(self) -> bool:
        try:
            return self._core.survey.disturbed()
        except OSError:
            return False  # a pass would fail, too: the next one in time reports why

    def run(self, stop: threading.Event) -> None:
        """Make a pass every 30 s, and soon after something wakes the loop, until `stop`."""
        core = self._core
        stamp, due = core.source.stamp(), core.clock() + PASS_S
        while not stop.is_set():
            woken = core.woken.wait(TICK_S)
            seen = core.source.stamp()
            in_time = due - PASS_S <= core.clock() < due
            if not woken and seen == stamp and in_time and not self._disturbed():
                continue
            stop.wait(DEBOUNCE_S)
            core.woken.clear()
            stamp = seen
            core.attempt()
            again_s = core.again_s()
            due = core.clock() + (PASS_S if again_s is None else min(again_s, PASS_S))
