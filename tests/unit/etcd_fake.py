"""An etcd in memory. It keeps `etcd_contract`, as the real one does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from driver.errors import Compacted, FlannelError, Unavailable
from driver.flannel.etcd.registry import Entry, EventBatch, KeyRange


class FakeRegistry:
    """The store. `down` makes calls and watches fail; `before_put` is called before each put."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.changed = threading.Condition(threading.RLock())
        self.keys: dict[str, Entry] = {}
        self.attached: dict[str, int] = {}
        self.leases: dict[int, float] = {}
        self.history: list[tuple[Entry, ...]] = []
        self.revision = 1
        self.compacted = 0
        self.down: FlannelError | None = None
        self.lose_answers = 0
        self.before_put: list[Callable[[], None]] = []
        self.calls: list[str] = []

    # --- Registry ---

    def read(self, keys: KeyRange) -> tuple[tuple[Entry, ...], int]:
        self._called("read")
        with self.changed:
            found = sorted(k for k in self.keys if covers(keys, k))
            return tuple(self.keys[k] for k in found), self.revision

    def grant(self, ttl_s: int) -> int:
        self._called("grant")
        lease = max(self.leases, default=0) + 1
        self.leases[lease] = self.clock() + ttl_s
        return lease

    def revoke(self, lease: int) -> None:
        self._called("revoke")
        del self.leases[lease]
        self.change(*((k, None) for k, own in list(self.attached.items()) if own == lease))

    def put_if(self, key: str, value: str, revision: int, lease: int = 0) -> int | None:
        self._called("put")
        while self.before_put:
            self.before_put.pop(0)()
        return self._change(key, value.encode(), revision, lease)

    def delete_if(self, key: str, revision: int) -> bool:
        self._called("delete")
        return self._change(key, None, revision, 0) is not None

    def watch(self, starts: Mapping[KeyRange, int]) -> FakeWatch:
        self._called("watch")
        for start in starts.values():
            if start <= self.compacted or start > self.revision + 1:
                raise Compacted(f"revision {start} is not known")
        return FakeWatch(self, dict(starts))

    # --- for tests ---

    def change(self, *changes: tuple[str, str | None], lease: int = 0) -> int:
        """Write and delete keys in one transaction, as another client."""
        with self.changed:
            events = []
            if changes:
                self.revision += 1
            for key, value in changes:
                raw = None if value is None else value.encode()
                entry = Entry(key, raw, self.revision)
                if raw is None:
                    if self.keys.pop(key, None) is None:
                        continue
                else:
                    self.keys[key] = entry
                self.attached[key] = lease
                events.append(entry)
            self.history.append(tuple(events))
            self.changed.notify_all()
            return self.revision

    def compact(self) -> None:
        self.compacted = self.revision

    def expire(self) -> None:
        """End the etcd leases whose time is over, and delete their keys."""
        for lease in [x for x, end in self.leases.items() if end <= self.clock()]:
            self.revoke(lease)

    def values(self) -> dict[str, str]:
        return {k: e.value.decode() for k, e in self.keys.items() if e.value is not None}

    def stop(self, why: str = "etcd cannot be reached: it is off") -> None:
        with self.changed:
            self.down = Unavailable(why)
            self.changed.notify_all()

    def start(self) -> None:
        self.down = None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise self.down

    def _change(self, key: str, value: bytes | None, revision: int, lease: int) -> int | None:
        with self.changed:
            there = self.keys.get(key)
            if (there.revision if there else 0) != revision:
                return None
            self.change((key, None if value is None else value.decode()), lease=lease)
            if self.lose_answers:
                self.lose_answers -= 1
                raise Unavailable("etcd cannot be reached: no answer in time")
            return self.revision


class FakeWatch:
    """A watch: it replays the history, one transaction at a time."""

    def __init__(self, registry: FakeRegistry, starts: dict[KeyRange, int]) -> None:
        self.registry, self.starts, self.closed = registry, starts, False

    def next(self, wait_s: float) -> EventBatch | None:
        with self.registry.changed:
            found = self._find()
            if found is None and wait_s:
                self.registry.changed.wait(wait_s)
                found = self._find()
            return found

    def _find(self) -> EventBatch | None:
        if self.registry.down or self.closed:
            raise Unavailable("the watch of etcd has ended")
        for events in self.registry.history:
            for keys, start in self.starts.items():
                seen = tuple(e for e in events if covers(keys, e.key) and e.revision >= start)
                if seen:
                    self.starts[keys] = seen[0].revision + 1
                    return EventBatch(keys, seen[0].revision, seen)
        return None

    def close(self) -> None:
        self.closed = True


def covers(keys: KeyRange, key: str) -> bool:
    return key.startswith(keys.key) if keys.prefix else key == keys.key
