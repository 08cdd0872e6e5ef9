"""All sides of the host together: take a plan's parts to those that they concern.

Imports `seams`, `objects`, `errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from driver.errors import Conflict, FlannelError, HostError
from driver.model.interfaces import Adapter, Resuming
from driver.model.objects import HostObject, Plan


def resume(hosts: Sequence[Adapter], objects: Iterable[HostObject]) -> None:
    """Have each side take over what an earlier run left of these."""
    for host in hosts:
        if isinstance(host, Resuming):
            host.resume(objects)


def take_away(hosts: Sequence[Adapter], plan: Plan) -> list[FlannelError]:
    """Remove what a plan says, from the last host to the first; give what could not be."""
    part = Plan(remove=plan.remove)
    return [error for host in reversed(hosts) for error in _apply(host, part)]


def make(hosts: Sequence[Adapter], plan: Plan) -> list[FlannelError]:
    """Make and change what a plan says, from the first host to the last; give what failed."""
    part = Plan(add=plan.add, change=plan.change)
    return [error for host in hosts for error in _apply(host, part)]


def first(errors: Sequence[FlannelError]) -> FlannelError:
    """Give the first failure; if it is a conflict, it names what was taken of all there were."""
    error = errors[0]
    if isinstance(error, Conflict):
        error.taken = tuple(t for e in errors if isinstance(e, Conflict) for t in e.taken)
    return error


def _apply(host: Adapter, plan: Plan) -> list[FlannelError]:
    part = plan.only(host.kinds)
    if not part:
        return []
    try:
        host.apply(part)
    except ExceptionGroup as group:
        return [e if isinstance(e, FlannelError) else HostError(repr(e)) for e in group.exceptions]
    return []
