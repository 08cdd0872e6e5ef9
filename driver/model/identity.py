"""The identity of an object on the host."""

from __future__ import annotations

from typing import Any, ClassVar


class Identified:
    """An object with a `key`: its class and the fields named in `identity`.

    Two objects with one key but other fields are an object before and after a change.
    `isolates`: without it, something that should be closed is open.
    """

    __slots__ = ()
    identity: ClassVar[tuple[str, ...]]
    isolates: ClassVar[bool] = False

    @property
    def key(self) -> Key:
        """The identity."""
        return (type(self), *[getattr(self, name) for name in self.identity])

    @classmethod
    def key_of(cls, *identity: object) -> Key:
        """Return the identity of an object of this class from its identifying fields."""
        return (cls, *identity)


Key = tuple[type[Identified], *tuple[Any, ...]]
