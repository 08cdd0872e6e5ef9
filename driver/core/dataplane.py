"""All adapters as one: each part of a plan goes to the adapter of its kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from driver.errors import Conflict, FlannelError, HostError
from driver.model.interfaces import Adapter, Resuming
from driver.model.objects import RANK, HostObject, Kinds, Plan, PortSocket


class Dataplane:
    """The adapters, sorted by `RANK`."""

    def __init__(self, adapters: Iterable[Adapter]) -> None:
        self._adapters = sorted(adapters, key=lambda a: min(RANK[kind] for kind in a.kinds))

    def observe(self, kinds: Kinds = tuple(RANK)) -> frozenset[HostObject]:
        """Return our objects on the host, at least of these kinds. Errors: HostError, OSError."""
        asked = [a for a in self._adapters if not set(kinds).isdisjoint(a.kinds)]
        return frozenset().union(*(adapter.observe() for adapter in asked))

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Let adapters take over what an earlier process left of these objects."""
        for adapter in self._adapters:
            if isinstance(adapter, Resuming):
                adapter.resume(objects)

    def take_away(self, plan: Plan) -> list[FlannelError]:
        """Remove what a plan removes, in reverse order. Return the failures."""
        part = Plan(remove=plan.remove)
        return [e for adapter in reversed(self._adapters) for e in _apply(adapter, part)]

    def make(self, plan: Plan) -> list[FlannelError]:
        """Add and change what a plan adds and changes, in order. Return the failures."""
        part = Plan(add=plan.add, change=plan.change)
        return [e for adapter in self._adapters for e in _apply(adapter, part)]

    def close(self) -> None:
        """Close what the adapters hold open; the host stays as it is."""
        for adapter in self._adapters:
            adapter.close()


def steps(plan: Plan) -> Iterator[Plan]:
    """Yield the steps in which a call carries out a plan, each containing the one before.

    Port sockets come first: a port that another program uses must not be redirected, not even for
    a moment.
    """
    if (sockets := plan.only((PortSocket,))).add:
        yield sockets
    yield plan


def first(errors: Sequence[FlannelError]) -> FlannelError:
    """Return the first failure; if it is a conflict, with the ports `taken` in all of them."""
    error = errors[0]
    if isinstance(error, Conflict):
        error.taken = tuple(t for e in errors if isinstance(e, Conflict) for t in e.taken)
    return error


def _apply(adapter: Adapter, plan: Plan) -> list[FlannelError]:
    part = plan.only(adapter.kinds)
    if not part:
        return []
    try:
        adapter.apply(part)
    except ExceptionGroup as group:
        return [e if isinstance(e, FlannelError) else HostError(repr(e)) for e in group.exceptions]
    return []
