"""This host's membership in the flannel network: it keeps the lease and finds the peers.

One thread follows etcd and does what `lease_policy` decides; others read the status. While etcd is
unreachable, everything stays as it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Network

from driver.errors import Compacted, FlannelError
from driver.flannel.allocation import preferred
from driver.flannel.etcd.registry import Entry, Registry, Watch
from driver.flannel.lease_policy import step, written
from driver.flannel.lease_types import (
    Delete,
    EtcdView,
    LeaseTimes,
    PolicyState,
    Step,
    ThisHost,
    Write,
)
from driver.flannel.mirror import Mirror
from driver.flannel.peers import clear_of_local, select_peers
from driver.model.records import Overlay, Peer

log = logging.getLogger(__name__)

RELIST_S = 300.0
TICK_S = 1.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
BURST_S = 0.2  # for so long at most, events are collected before they are acted on
MOST_STEPS = 10  # without a look at new events


@dataclass(frozen=True, slots=True)
class MembershipStatus:
    """What this host has of the flannel network. `subnet`: the one to use; None: there is none.

    `phase`: "acquiring", "held", "renewing", "lost" (another host has our subnet), "moved" (held,
    and not the subnet of before), "refused" (another host has our public IP or MAC), "waiting" (for
    a network config), "beside" (a flanneld on this host has the network: nothing is written) or
    "unreachable" (etcd is; the rest is as it was). `problems`: a sentence each.
    """

    overlay: Overlay | None = None
    subnet: IPv4Network | None = None
    peers: frozenset[Peer] = frozenset()
    phase: str = "unreachable"
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What tests set. `clock` counts in seconds, also while the machine is suspended."""

    times: LeaseTimes = field(default_factory=LeaseTimes)
    relist_s: float = RELIST_S
    tick_s: float = TICK_S
    pause_s: float = FIRST_PAUSE_S
    burst_s: float = BURST_S
    clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)


class Membership:
    """Follows etcd in `run`, and keeps this host's lease."""

    def __init__(  # noqa: PLR0913 - three of them are callbacks and options
        self,
        registry: Registry,
        prefix: str,
        host: ThisHost,
        known: MembershipStatus = MembershipStatus(),
        *,
        in_use: Callable[[], str] = str,
        changed: Callable[[], None] = lambda: None,
        flanneld_sign: Callable[[Overlay], str] = lambda _overlay: "",
        options: Options = Options(),
    ) -> None:
        """Begin with the overlay, subnet and peers `known` from before.

        `in_use` returns what uses the subnet, see `ThisHost`.
        `changed` is called in the thread of `run` after each change of the status.
        `flanneld_sign` returns what shows that a flanneld on this host has an overlay; nothing is
        written then.
        """
        self._registry, self._options = registry, options
        self._host, self._in_use, self._changed = host, in_use, changed
        self._mirror, self._flanneld_sign = Mirror(registry, prefix), flanneld_sign
        self._state = PolicyState(overlay=known.overlay, subnet=known.subnet)
        self._status = replace(known, phase="unreachable", problems=())
        self._published: tuple[EtcdView, ThisHost, Step] | None = None
        self._pause_s = self._options.pause_s
        self._known = threading.Event()

    def wait_until_known(self, wait_s: float) -> None:
        """Wait until the status says what etcd holds, or that etcd is unreachable."""
        self._known.wait(wait_s)

    def status(self) -> MembershipStatus:
        """Return the status as it was published last."""
        return self._status

    def set_host(self, host: ThisHost) -> None:
        """Change what this host is; another public IP or MAC is written into its lease."""
        self._host = host

    def run(self, stop: threading.Event) -> None:
        """Follow etcd until `stop`. The lease stays in etcd."""
        while not stop.is_set():
            try:
                self._follow(stop)
            except Compacted as error:
                log.info("%s: relisting", error)
                self._mirror.invalidate()
            except FlannelError as error:
                self._publish_unreachable(str(error))
            except Exception as error:  # whatever etcd holds must not end the thread
                log.error("following etcd failed", exc_info=error)
                self._publish_unreachable(f"following etcd failed: {error!r}")
                self._mirror.invalidate()
            self._known.set()
            stop.wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _follow(self, stop: threading.Event) -> None:
        """Watch etcd from the last revision seen, and act, until a call fails.

        Errors: Compacted, FlannelError.
        """
        with closing(self._registry.watch(self._mirror.sync())) as watch:
            self._pause_s = self._options.pause_s
            listed = self._options.clock()
            while True:
                began = time.monotonic()
                self._take_steps()
                now = time.monotonic()
                self._collect_events(watch, now + (now - began))
                if stop.is_set():
                    return
                if self._options.clock() - listed >= self._options.relist_s:
                    self._mirror.relist()
                    self._mirror.read_config()
                    listed = self._options.clock()

    def _collect_events(self, watch: Watch, until: float) -> None:
        """Wait for events; take those that are there, and those that come before `until`.

        So a single event is acted on at once, and a flood takes half of this thread's time.
        """
        batch = watch.next(self._options.tick_s)
        end = time.monotonic() + self._options.burst_s
        while batch is not None:
            self._mirror.apply(batch)
            now = time.monotonic()
            batch = watch.next(max(0.0, min(until, end) - now)) if now < end else None

    # --- acting ---

    def _take_steps(self) -> None:
        """Take steps until there is nothing to do, or until it is time for events again."""
        for _ in range(MOST_STEPS):
            view, now = self._mirror.view(), self._options.clock()
            host = replace(self._host, in_use=self._in_use())
            choose = partial(preferred, host.public_ip)
            found = step(self._state, view, host, now, choose)
            found = self._yielding_to_flanneld(found)
            self._state = found.state
            if self._published != (view, host, found):
                self._publish_step(found, view, host)
                self._published = view, host, found
            if found.action is None:
                self._known.set()
                return
            if not self._carry_out(found.action):
                self._mirror.relist()  # another host was faster, or the answer to us was lost

    def _yielding_to_flanneld(self, found: Step) -> Step:
        """Return a step without its action where a flanneld has the network."""
        if found.action is None or found.state.overlay is None:
            return found
        sign = self._flanneld_sign(found.state.overlay)
        if not sign:
            return found
        return replace(found, phase="beside", action=None, problems=(sign, *found.problems))

    def _carry_out(self, action: Write | Delete) -> bool:
        """Return whether etcd has accepted an action, since the key was as expected."""
        try:
            return self._delete(action) if isinstance(action, Delete) else self._write(action)
        except FlannelError:
            self._mirror.invalidate()  # only a new list shows what was done
            raise

    def _delete(self, action: Delete) -> bool:
        done = self._registry.delete_if(action.key, action.revision)
        if done:
            log.info("deleted the lease %s, which this host may not have", action.key)
            self._mirror.put(Entry(action.key, None, action.revision))
        return done

    def _write(self, action: Write) -> bool:
        times = self._options.times
        lease = self._registry.grant(times.ttl_s)
        now = self._options.clock()  # before the write: better renew too early than too late
        revision = self._registry.put_if(action.key, action.value, action.revision, lease)
        if revision is None:
            self._registry.revoke(lease)
            return False
        self._mirror.put(Entry(action.key, action.value.encode(), revision))
        self._state = written(self._state, action, revision, now, times)
        return True

    # --- the status ---

    def _publish_step(self, found: Step, view: EtcdView, host: ThisHost) -> None:
        overlay, peers = found.state.overlay, self._status.peers
        records, problems = view.leases
        if overlay is not None:
            # while containers use a subnet that we lost, its new holder is no peer of ours
            subnet = found.subnet or (found.state.subnet if host.in_use else None)
            peers, more = select_peers(records, overlay, replace(host, subnet=subnet), peers)
            problems = problems + more
        told = found.problems + tuple(problems)
        self._publish(MembershipStatus(overlay, found.subnet, peers, found.phase, told))

    def _publish_unreachable(self, problem: str) -> None:
        problems, self._published = [problem], None
        held, times, old = self._state.held, self._options.times, self._status
        if held is not None and self._options.clock() >= held.due + times.margin_s:
            problems.append(f"our lease of {held.subnet} has run out: another host may take it")
        peers = clear_of_local(old.peers, old.overlay, self._host)
        self._publish(replace(old, peers=peers, phase="unreachable", problems=tuple(problems)))

    def _publish(self, new: MembershipStatus) -> None:
        old, self._status = self._status, new
        if (new.phase, new.subnet) != (old.phase, old.subnet):
            log.info("lease %s subnet=%s peers=%d", new.phase, new.subnet, len(new.peers))
        if new != old:
            self._changed()
