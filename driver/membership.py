"""This host as a member of the flannel network: its lease, and the peers.

One thread follows etcd and does what `lease_steps` decides; whoever wants to know takes the
snapshot. When etcd is away, everything stays as it was. Imports `lease_steps`, `flannel`,
`flannel_config`, `registry`, `model`, `errors`.
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

from driver.errors import BadRecord, Compacted, FlannelError
from driver.flannel import Readings, config_key, lease_range
from driver.flannel_config import read_config
from driver.lease_steps import (
    Choose,
    Delete,
    Host,
    Memory,
    Sight,
    Step,
    Terms,
    Write,
    step,
    written,
)
from driver.model import Overlay, Peer, Vtep
from driver.peers import Own, sort_peers
from driver.registry import Batch, Entry, Feed, Registry, Span

log = logging.getLogger(__name__)

RELIST_S = 300.0
TICK_S = 1.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
BURST_S = 0.2  # a flood of events is looked at in portions of so long
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How things stand. `subnet`: the one this host is to use; None while it has none.

    `state`: "acquiring", "held", "renewing", "lost" (another host has our subnet), "moved" (held,
    and another subnet than before), "refused" (another host has our public IP), "waiting" (for a
    network config) or "unreachable" (etcd; the rest is as it was). `problems`: a sentence each.
    """

    overlay: Overlay | None = None
    subnet: IPv4Network | None = None
    peers: frozenset[Peer] = frozenset()
    state: str = "unreachable"
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What tests set. `clock` counts in seconds, also while the machine is suspended."""

    terms: Terms = field(default_factory=Terms)
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
        vtep: Vtep,
        known: Snapshot = Snapshot(),
        *,
        in_use: Callable[[], bool] = lambda: False,
        changed: Callable[[], None] = lambda: None,
        options: Options = Options(),
    ) -> None:
        """Begin with what is `known` from before: overlay, subnet and peers.

        `in_use` tells whether networks use the subnet: it is then not given up for another.
        `changed` is called in the thread of `run` after each change of the snapshot.
        """
        self._registry, self._prefix, self._options = registry, prefix, options
        self._vtep, self._in_use, self._changed = vtep, in_use, changed
        self._config = Span(config_key(prefix))
        self._leases = Span(lease_range(prefix), prefix=True)
        self._memory = Memory(overlay=known.overlay, subnet=known.subnet)
        self._snapshot = replace(known, state="unreachable", problems=())
        self._entries: dict[str, Entry] = {}
        self._known: Readings = {}
        self._overlay: tuple[Overlay | None, str] = (None, "")
        self._sight: Sight | None = None
        self._told: tuple[Sight, Host, Step] | None = None
        self._seen: dict[Span, int] = {}
        self._pause_s = self._options.pause_s
        self._heard = threading.Event()

    def hear(self, wait_s: float) -> None:
        """Wait until it is known how things stand in etcd, or that it is away."""
        self._heard.wait(wait_s)

    def snapshot(self) -> Snapshot:
        """Tell how things stand."""
        return self._snapshot

    def identify(self, vtep: Vtep) -> None:
        """Change this host's public IP or MAC; the lease is written again within a second."""
        self._vtep = vtep

    def run(self, stop: threading.Event) -> None:
        """Follow etcd until `stop`. The lease stays."""
        while not stop.is_set():
            try:
                self._follow(stop)
            except Compacted as error:
                log.info("%s: all is read anew", error)
                self._seen.clear()
            except FlannelError as error:
                self._cut_off(str(error))
            except Exception as error:  # what etcd holds must not end the thread
                log.error("following etcd failed", exc_info=error)
                self._cut_off(f"following etcd failed: {error!r}")
                self._seen.clear()
            self._heard.set()
            stop.wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    # --- what etcd has ---

    def _follow(self, stop: threading.Event) -> None:
        """Go on from what was seen last, for as long as etcd answers.

        Errors: Compacted, FlannelError.
        """
        if self._leases not in self._seen:
            self._list()
        self._read_config()
        starts = {span: revision + 1 for span, revision in self._seen.items()}
        with closing(self._registry.watch(starts)) as feed:
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
                    self._list()
                    self._read_config()
                    listed = self._options.clock()

    def _list(self) -> None:
        entries, revision = self._registry.read(self._leases)
        self._entries = {entry.key: entry for entry in entries}
        self._known = {e: self._known[e] for e in entries if e in self._known}
        self._sight = None
        self._seen[self._leases] = revision

    def _read_config(self) -> None:
        entries, revision = self._registry.read(self._config)
        self._take_config(entries[0].value if entries else None)
        self._seen[self._config] = revision

    def _take_config(self, text: bytes | None) -> None:
        self._sight, place = None, f"in etcd at {self._config.key}"
        if text is None:
            self._overlay = None, f"there is no network config {place}"
            return
        try:
            self._overlay = read_config(text), ""
        except BadRecord as error:
            self._overlay = None, f"the network config {place} is bad: {error}"

    def _take_burst(self, feed: Feed, rested: float) -> None:
        """Wait for events, and take all that are there, and that come until we have `rested`.

        So a lone event is looked at at once, while a flood takes no more than half of our time.
        """
        batch = feed.next(self._options.tick_s)
        end = time.monotonic() + self._options.burst_s
        while batch is not None:
            self._take(batch)
            now = time.monotonic()
            batch = feed.next(max(0.0, min(rested, end) - now)) if now < end else None

    def _take(self, batch: Batch) -> None:
        """Take over events, but for those older than the last list."""
        for event in batch.events:
            if event.revision <= self._seen[batch.span]:
                continue
            if batch.span == self._config:
                self._take_config(event.value)
            else:
                self._put(event)
        self._seen[batch.span] = max(batch.revision, self._seen[batch.span])

    def _put(self, entry: Entry) -> None:
        self._sight = None
        old = self._entries.pop(entry.key, None)
        if old is not None:
            self._known.pop(old, None)
        if entry.value is not None:
            self._entries[entry.key] = entry

    def _look(self) -> Sight:
        """Give what etcd has; leases are read anew only after a change."""
        if self._sight is None:
            self._sight = Sight(self._prefix, *self._overlay, self._entries, self._known)
        return self._sight

    # --- what is done about it ---

    def _settle(self) -> None:
        """Take steps until there is nothing to do; those to come are taken after the next tick."""
        for _ in range(ROUNDS):
            sight, now = self._look(), self._options.clock()
            host = Host(Own(self._vtep.public_ip, self._vtep.mac), self._in_use())
            found = step(self._memory, sight, host, now, self._options.choose)
            self._memory = found.memory
            if self._told != (sight, host, found):
                self._tell(found, sight, host)
                self._told = sight, host, found
            if found.action is None:
                self._heard.set()
                return
            if not self._attempt(found.action):
                self._list()  # somebody was faster, or it was us and the answer was lost

    def _attempt(self, action: Write | Delete) -> bool:
        """Carry an action out; when it fails half-way, only a new list tells what was done."""
        try:
            return self._act(action)
        except FlannelError:
            self._seen.clear()
            raise

    def _act(self, action: Write | Delete) -> bool:
        """Carry an action out; tell whether etcd was still as it was when that was decided."""
        if isinstance(action, Delete):
            done = self._registry.delete_if(action.key, action.revision)
            if done:
                log.info("deleted the lease %s, which the config does not allow", action.key)
                self._put(Entry(action.key, None, action.revision))
            return done
        lease = self._registry.grant(self._options.terms.ttl_s)
        # the time is taken before: better too early than too late
        now = self._options.clock()
        revision = self._registry.put_if(action.key, action.value, action.revision, lease)
        if revision is None:
            self._registry.revoke(lease)
            return False
        self._put(Entry(action.key, action.value.encode(), revision))
        self._memory = written(self._memory, action, revision, now, self._options.terms)
        return True

    # --- what others see ---

    def _tell(self, found: Step, sight: Sight, host: Host) -> None:
        overlay, peers = found.memory.overlay, self._snapshot.peers
        records, problems = sight.leases
        if overlay is not None:
            # a subnet that was lost is no peer's for us while containers use its addresses
            subnet = found.subnet or (found.memory.subnet if host.in_use else None)
            peers, more = sort_peers(records, overlay, replace(host.own, subnet=subnet))
            problems = problems + more
        self._publish(
            Snapshot(overlay, found.subnet, peers, found.state, found.problems + tuple(problems))
        )

    def _cut_off(self, problem: str) -> None:
        problems, self._told = [problem], None
        held, terms = self._memory.held, self._options.terms
        if held is not None and self._options.clock() >= held.due + terms.margin_s:
            problems.append(f"our lease of {held.subnet} has run out: another host may take it")
        self._publish(replace(self._snapshot, state="unreachable", problems=tuple(problems)))

    def _publish(self, new: Snapshot) -> None:
        old, self._snapshot = self._snapshot, new
        for problem in new.problems:
            if problem not in old.problems:
                log.warning("%s", problem)
        if (new.state, new.subnet) != (old.state, old.subnet):
            log.info("lease %s subnet=%s peers=%d", new.state, new.subnet, len(new.peers))
        if new != old:
            self._changed()
