"""What every journal and every host has to do, real or fake. No pytest in here.

The kernel tests run `check_host` on the real adapters with things of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from driver.model.interfaces import Host, Journal
from driver.model.objects import RANK, Plan, Thing
from driver.model.records import State, replace
from tests.unit.sample import DNS, END, END2, LEASE, RECORDS, WEB, endpoint, hold, state_of


def check_host(
    host: Host, things: Sequence[Thing], change: tuple[Thing, Thing] | None = None
) -> None:
    """Make `things` on a host that has none of ours, change one, remove all; each step twice.

    `things` in rank order, of the host's kinds, self-contained; `change` is (one of them, the
    same otherwise). Leaves the host as it was.
    """
    assert list(things) == sorted(things, key=lambda t: RANK[type(t)]), "things are not in order"
    assert all(isinstance(thing, host.kinds) for thing in things)
    assert host.observe() == frozenset(), "the host is not empty at the start"
    add = Plan(add=tuple(things))
    host.apply(Plan())
    assert host.observe() == frozenset(), "an empty plan made something"
    for turn in ("first", "second"):
        host.apply(add)
        assert host.observe() == frozenset(things), f"after the {turn} time of adding"
    wanted = frozenset(things)
    if change is not None:
        old, new = change
        wanted = wanted - {old} | {new}
        for turn in ("first", "second"):
            host.apply(Plan(change=(change,)))
            assert host.observe() == wanted, f"after the {turn} time of changing"
        host.apply(Plan(change=((new, old),)))
        assert host.observe() == frozenset(things), "a change could not be taken back"
    check_removal(host, things)


def check_removal(host: Host, things: Sequence[Thing]) -> None:
    """Remove the last thing, put it back, and remove all; each removal twice."""
    last = things[-1]
    for turn in ("first", "second"):
        host.apply(Plan(remove=(last,)))
        assert last not in host.observe(), f"{last} is there after the {turn} removal"
    host.apply(Plan(add=(last,)))
    assert host.observe() == frozenset(things), f"{last} did not come back"
    for turn in ("first", "second"):
        host.apply(Plan(remove=tuple(reversed(things))))
        assert host.observe() == frozenset(), f"left over after the {turn} removal of all"


def check_failure(host: Host, good: Sequence[Thing], bad: Thing, words: str) -> None:
    """Apply a plan of which one thing must fail: the error says so, and the rest is done.

    `words` have to be in the message of one of the errors.
    """
    try:
        host.apply(Plan(add=(bad, *good)))
    except ExceptionGroup as group:
        assert words in repr(group.exceptions), f"{group.exceptions} do not name {words!r}"
    else:
        raise AssertionError(f"{bad} was taken without an error")
    assert bad not in host.observe()
    assert host.observe() >= frozenset(good), "what could be done was not done"
    host.apply(Plan(remove=tuple(reversed(good))))


def check_journal(reopen: Callable[[], Journal]) -> None:
    """Write, replace and remove rows; `reopen` gives the journal as after a restart."""
    journal = reopen()
    assert journal.load() == State(), "the journal is not empty at the start"
    journal.commit([], [], durable=True)
    assert journal.load() == State(), "an empty commit wrote something"

    journal.commit(RECORDS, [], durable=True)
    assert journal.load() == state_of(*RECORDS)
    assert reopen().load() == state_of(*RECORDS), "rows did not outlive a restart"

    journal = reopen()
    moved = endpoint(END2, sandbox=None, ports=(DNS, WEB))
    journal.commit([moved, replace(LEASE, mtu=1400)], [endpoint(END)], durable=False)
    found = reopen().load()
    assert found.endpoints == {END2: moved}, "a row was not replaced, or not removed"
    assert found.lease == replace(LEASE, mtu=1400)
    assert found.holds == state_of(*RECORDS).holds, "rows that no one named have changed"

    journal = reopen()
    journal.commit([], [endpoint(END)], durable=False)
    assert reopen().load() == found, "removing what is gone has done something"

    kept = hold("10.2.3.2", released=False)
    journal = reopen()
    journal.commit([kept], [kept], durable=False)
    assert reopen().load().holds[kept.id] == kept, "a row that is dropped and put has to stay"

    journal = reopen()
    journal.commit([], [r for r in RECORDS if r.kind != "lease"], durable=True)
    journal.commit([], [LEASE], durable=True)
    assert reopen().load() == State(), "rows are left over"
    assert not reopen().lost()
