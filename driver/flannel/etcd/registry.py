"""What the flannel room asks of etcd: a protocol and its types, met by `Etcd` and the tests' fake.

flannel calls this the registry, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyRange:
    """One key, or with `prefix` every key that starts with it."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as of its last write. In an event, `value` None means that it was deleted."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events of one answer of a watch, which can be resumed from `revision` + 1."""

    keys: KeyRange
    revision: int
    events: tuple[Entry, ...] = ()


class Watch(Protocol):
    """A running watch."""

    def next(self, wait_s: float) -> EventBatch | None:
        """Return the next batch, or None if none came in time.

        Errors: Compacted, Unavailable, FlannelError; the watch has ended then.
        """

    def close(self) -> None:
        """End the watch."""


class Registry(Protocol):
    """etcd's calls. Each ends within a limit, with Unavailable or another FlannelError."""

    def read(self, keys: KeyRange) -> tuple[tuple[Entry, ...], int]:
        """Return the entries of a range in key order, and the store's revision."""

    def grant(self, ttl_s: int) -> int:
        """Return the id of a new etcd lease."""

    def revoke(self, lease: int) -> None:
        """End an etcd lease and delete the keys attached to it."""

    def put_if(self, key: str, value: str, revision: int, lease: int = 0) -> int | None:
        """Write a key if it still has this revision; 0: if it does not exist.

        Returns the new revision, None if the key has another. If an earlier call failed half-way,
        None can mean that it has written.
        """

    def delete_if(self, key: str, revision: int) -> bool:
        """Delete a key if it still has this revision; return whether it had."""

    def watch(self, starts: Mapping[KeyRange, int]) -> Watch:
        """Watch ranges, each from a revision on. Errors: as of `Watch.next`."""
