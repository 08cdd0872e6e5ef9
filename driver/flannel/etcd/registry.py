"""What is asked of etcd, in its nouns and as one seam, met by `etcd.Etcd` and the tests' fake.

Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyRange:
    """One key, or every key that starts with a text."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands, or as an event leaves it. `value` None: it is gone since `revision`."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class EventBatch:
    """What one answer of a watch brings. A watch goes on at `revision` + 1."""

    span: KeyRange
    revision: int
    events: tuple[Entry, ...] = ()


class Watch(Protocol):
    """A running watch."""

    def next(self, wait_s: float) -> EventBatch | None:
        """Give the next batch, or None when none came in time.

        Errors: Compacted, Unavailable, FlannelError; the feed is then dead.
        """

    def close(self) -> None:
        """End the watch."""


class Registry(Protocol):
    """etcd's calls. Each ends within a limit, with Unavailable or another FlannelError."""

    def read(self, span: KeyRange) -> tuple[tuple[Entry, ...], int]:
        """Give what is there, in key order, and the store's revision."""

    def grant(self, ttl_s: int) -> int:
        """Make an etcd lease."""

    def revoke(self, lease: int) -> None:
        """End an etcd lease; the keys that hang on it go."""

    def put_if(self, key: str, value: str, revision: int, lease: int = 0) -> int | None:
        """Write a key if its revision is still this one, 0 for a key that is not there.

        Gives the new revision, None when the key was another. A call that failed half-way may
        have written: None can mean that we did.
        """

    def delete_if(self, key: str, revision: int) -> bool:
        """Delete a key if its revision is still this one."""

    def watch(self, starts: Mapping[KeyRange, int]) -> Watch:
        """Watch spans, each from a revision on.

        Errors: as `Watch.next`.
        """
