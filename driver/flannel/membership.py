"""This host as a member of the flannel network: its lease, and the peers.

One thread follows etcd and does what `lease_steps` decides; whoever wants to know takes the
status. When etcd is away, everything stays as it was. Imports `lease_steps`, `mirror`, `peers`,
`registry`, `model`, `errors`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network

from driver.errors import Compacted, FlannelError
from driver.flannel.etcd.registry import Entry, Registry, Watch
from driver.flannel.lease_policy import step, written
from driver.flannel.lease_types import (
    Choose,
    Delete,
    EtcdView,
    LeaseTimes,
    PolicyState,
    Step,
    ThisHost,
    Write,
)
from driver.flannel.mirror import Mirror
from driver.flannel.peers import clear_of_local, sort_peers
from driver.model.records import Overlay, Peer

log = logging.getLogger(__name__)

RELIST_S = 300.0
TICK_S = 1.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
BURST_S = 0.2  # a flood of events is looked at in portions of so long
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class MembershipStatus:
    """How objects stand. `subnet`: the one this host is to use; None while it has none.

    `state`: "acquiring", "held", "renewing", "lost" (another host has our subnet), "moved" (held,
    and another subnet than before), "refused" (another host has our public IP), "waiting" (for a
    network config), "beside" (a flanneld of this host has the network: nothing is written) or
    "unreachable" (etcd; the rest is as it was). `problems`: a sentence each.
    """

    overlay: Overlay | None = None
    subnet: IPv4Network | None = None
    peers: frozenset[Peer] = frozenset()
    phase: str = "unreachable"
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What tests set. `clock` counts in seconds, also while the machine is suspended."""

    terms: LeaseTimes = field(default_factory=LeaseTimes)
    relist_s: float = RELIST_S
    tick_s: float = TICK_S
    pause_s: float = FIRST_PAUSE_S
    burst_s: float = BURST_S
    clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    choose: Choose = random.SystemRandom().choice


class Membership:
    """Follows etcd in `run`, and keeps this host's lease."""

    def __init__(  # noqa: PLR0913 - three of them are callbacks and options
        self,
        registry: Registry,
        prefix: str,
        own: ThisHost,
        known: MembershipStatus = MembershipStatus(),
        *,
        in_use: Callable[[], bool] = lambda: False,
        changed: Callable[[], None] = lambda: None,
        beside: Callable[[Overlay], str] = lambda _overlay: "",
        options: Options = Options(),
    ) -> None:
        """Begin with what is `known` from before: overlay, subnet and peers.

        `in_use` tells whether networks use the subnet: it is then not given up for another.
        `changed` is called in the thread of `run` after each change of the status. `beside` says
        of what a flanneld of this host has, if it has this network: then nothing is written.
        """
        self._registry, self._options = registry, options
        self._own, self._in_use, self._changed = own, in_use, changed
        self._mirror, self._beside = Mirror(registry, prefix), beside
        self._state = PolicyState(overlay=known.overlay, subnet=known.subnet)
        self._snapshot = replace(known, phase="unreachable", problems=())
        self._told: tuple[EtcdView, ThisHost, Step] | None = None
        self._pause_s = self._options.pause_s
        self._heard = threading.Event()

    def wait_until_known(self, wait_s: float) -> None:
        """Wait until it is known how objects stand in etcd, or that it is away."""
        self._heard.wait(wait_s)

    def status(self) -> MembershipStatus:
        """Tell how objects stand."""
        return self._snapshot

    def set_host(self, own: ThisHost) -> None:
        """Say what this host is like; with another public IP or MAC its lease is written again."""
        self._own = own

    def run(self, stop: threading.Event) -> None:
        """Follow etcd until `stop`. The lease stays."""
        while not stop.is_set():
            try:
                self._follow(stop)
            except Compacted as error:
                log.info("%s: all is read anew", error)
                self._mirror.forget()
            except FlannelError as error:
                self._cut_off(str(error))
            except Exception as error:  # what etcd holds must not end the thread
                log.error("following etcd failed", exc_info=error)
                self._cut_off(f"following etcd failed: {error!r}")
                self._mirror.forget()
            self._heard.set()
            stop.wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _follow(self, stop: threading.Event) -> None:
        """Go on from what was seen last, for as long as etcd answers.

        Errors: Compacted, FlannelError.
        """
        with closing(self._registry.watch(self._mirror.begin())) as feed:
            self._pause_s = self._options.pause_s
            listed = self._options.clock()
            while True:
                began = time.monotonic()
                self._settle()
                now = time.monotonic()
                self._take_burst(feed, now + (now - began))
                if stop.is_set():
                    return
                if self._options.clock() - listed >= self._options.relist_s:
                    self._mirror.list()
                    self._mirror.read_config()
                    listed = self._options.clock()

    def _take_burst(self, feed: Watch, rested: float) -> None:
        """Wait for events, and take all that are there, and that come until we have `rested`.

        So a lone event is looked at at once, while a flood takes no more than half of our time.
        """
        batch = feed.next(self._options.tick_s)
        end = time.monotonic() + self._options.burst_s
        while batch is not None:
            self._mirror.take(batch)
            now = time.monotonic()
            batch = feed.next(max(0.0, min(rested, end) - now)) if now < end else None

    # --- what is done about it ---

    def _settle(self) -> None:
        """Take steps until there is nothing to do; those to come are taken after the next tick."""
        for _ in range(ROUNDS):
            view, now = self._mirror.look(), self._options.clock()
            host = replace(self._own, in_use=self._in_use())
            found = self._allowed(step(self._state, view, host, now, self._options.choose))
            self._state = found.state
            if self._told != (view, host, found):
                self._tell(found, view, host)
                self._told = view, host, found
            if found.action is None:
                self._heard.set()
                return
            if not self._attempt(found.action):
                self._mirror.list()  # somebody was faster, or it was us and the answer was lost

    def _allowed(self, found: Step) -> Step:
        """Leave etcd as it is where a flanneld has the network: look before anything is written."""
        if found.action is None or found.state.overlay is None:
            return found
        why = self._beside(found.state.overlay)
        if not why:
            return found
        return replace(found, phase="beside", action=None, problems=(why, *found.problems))

    def _attempt(self, action: Write | Delete) -> bool:
        """Carry an action out; when it fails half-way, only a new list tells what was done."""
        try:
            return self._act(action)
        except FlannelError:
            self._mirror.forget()
            raise

    def _act(self, action: Write | Delete) -> bool:
        """Carry an action out; tell whether etcd was still as it was when that was decided."""
        if isinstance(action, Delete):
            done = self._registry.delete_if(action.key, action.revision)
            if done:
                log.info("deleted the lease %s, which this host may not have", action.key)
                self._mirror.put(Entry(action.key, None, action.revision))
            return done
        lease = self._registry.grant(self._options.terms.ttl_s)
        # the time is taken before: better too early than too late
        now = self._options.clock()
        revision = self._registry.put_if(action.key, action.value, action.revision, lease)
        if revision is None:
            self._registry.revoke(lease)
            return False
        self._mirror.put(Entry(action.key, action.value.encode(), revision))
        self._state = written(self._state, action, revision, now, self._options.terms)
        return True

    # --- what others see ---

    def _tell(self, found: Step, view: EtcdView, host: ThisHost) -> None:
        overlay, peers = found.state.overlay, self._snapshot.peers
        records, problems = view.leases
        if overlay is not None:
            # a subnet that was lost is no peer's for us while containers use its addresses
            subnet = found.subnet or (found.state.subnet if host.in_use else None)
            peers, more = sort_peers(records, overlay, replace(host, subnet=subnet), peers)
            problems = problems + more
        self._publish(
            MembershipStatus(
                overlay, found.subnet, peers, found.phase, found.problems + tuple(problems)
            )
        )

    def _cut_off(self, problem: str) -> None:
        problems, self._told = [problem], None
        held, terms, old = self._state.held, self._options.terms, self._snapshot
        if held is not None and self._options.clock() >= held.due + terms.margin_s:
            problems.append(f"our lease of {held.subnet} has run out: another host may take it")
        peers = clear_of_local(old.peers, old.overlay, self._own)
        self._publish(replace(old, peers=peers, phase="unreachable", problems=tuple(problems)))

    def _publish(self, new: MembershipStatus) -> None:
        old, self._snapshot = self._snapshot, new
        known = frozenset(old.problems)  # there may be thousands
        for problem in new.problems:
            if problem not in known:
                log.warning("%s", problem)
        if (new.phase, new.subnet) != (old.phase, old.subnet):
            log.info("lease %s subnet=%s peers=%d", new.phase, new.subnet, len(new.peers))
        if new != old:
            self._changed()
