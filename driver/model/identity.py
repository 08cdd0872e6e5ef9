"""What makes two objects on the host one and the same."""

from __future__ import annotations

from typing import ClassVar

Key = tuple[str, ...]


class Identified:
    """An object with a `key`, its identity: its class and the fields named in `identity`.

    Two objects with one key and other fields that differ are one object that has to change.
    `isolates`: without it something closed is open.
    """

    __slots__ = ()
    identity: ClassVar[tuple[str, ...]]
    isolates: ClassVar[bool] = False

    @property
    def key(self) -> Key:
        """The identity."""
        return self.key_of(*[getattr(self, name) for name in self.identity])

    @classmethod
    def key_of(cls, *identity: object) -> Key:
        """Return the identity of an object of this class from its identifying fields."""
        return (cls.__name__, *map(str, identity))
