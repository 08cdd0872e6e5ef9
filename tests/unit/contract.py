"""What adapters, surveys, journals and lease sources have to do, real or fake. No pytest in here.

tests/README.md lists which test holds which of them against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from driver.model.facts import Facts
from driver.model.interfaces import Adapter, Journal, Source, Survey
from driver.model.objects import RANK, Bridge, HostObject, Plan, Veth
from driver.model.records import State, replace
from tests.unit.sample import DNS, END, END2, LEASE, RECORDS, WEB, endpoint, hold, state_of


def check_adapter(
    adapter: Adapter,
    objects: Sequence[HostObject],
    change: tuple[HostObject, HostObject] | None = None,
) -> None:
    """Make `objects` where the host has none of ours, change one, remove all; each step twice.

    `objects` in rank order, of the adapter's kinds, self-contained; `change` is (one of them, the
    same otherwise). Leaves the host as it was.
    """
    assert list(objects) == sorted(objects, key=lambda t: RANK[type(t)]), "objects are not in order"
    assert all(isinstance(item, adapter.kinds) for item in objects)
    assert adapter.observe() == frozenset(), "the host is not empty at the start"
    add = Plan(add=tuple(objects))
    adapter.apply(Plan())
    assert adapter.observe() == frozenset(), "an empty plan made something"
    for turn in ("first", "second"):
        adapter.apply(add)
        assert adapter.observe() == frozenset(objects), f"after the {turn} time of adding"
    wanted = frozenset(objects)
    if change is not None:
        old, new = change
        wanted = wanted - {old} | {new}
        for turn in ("first", "second"):
            adapter.apply(Plan(change=(change,)))
            assert adapter.observe() == wanted, f"after the {turn} time of changing"
        adapter.apply(Plan(change=((new, old),)))
        assert adapter.observe() == frozenset(objects), "a change could not be taken back"
    check_removal(adapter, objects)


def check_removal(adapter: Adapter, objects: Sequence[HostObject]) -> None:
    """Remove the last object, put it back, and remove all; each removal twice."""
    last = objects[-1]
    for turn in ("first", "second"):
        adapter.apply(Plan(remove=(last,)))
        assert last not in adapter.observe(), f"{last} is there after the {turn} removal"
    adapter.apply(Plan(add=(last,)))
    assert adapter.observe() == frozenset(objects), f"{last} did not come back"
    for turn in ("first", "second"):
        adapter.apply(Plan(remove=tuple(reversed(objects))))
        assert adapter.observe() == frozenset(), f"left over after the {turn} removal of all"


def check_failure(
    adapter: Adapter, good: Sequence[HostObject], bad: HostObject, words: str
) -> None:
    """Apply a plan of which one object must fail: the error says so, and the rest is done.

    `words` have to be in the message of one of the errors.
    """
    try:
        adapter.apply(Plan(add=(bad, *good)))
    except ExceptionGroup as group:
        assert words in repr(group.exceptions), f"{group.exceptions} do not name {words!r}"
    else:
        raise AssertionError(f"{bad} was taken without an error")
    assert bad not in adapter.observe()
    assert adapter.observe() >= frozenset(good), "what could be done was not done"
    adapter.apply(Plan(remove=tuple(reversed(good))))


def check_waiting(adapter: Adapter, item: HostObject, arrive: Callable[[], object]) -> None:
    """Add an object before its place is there: nothing happens and nothing fails until it is."""
    adapter.apply(Plan(add=(item,)))
    assert adapter.observe() == frozenset()
    arrive()
    adapter.apply(Plan(add=(item,)))
    assert adapter.observe() == {item}
    adapter.apply(Plan(remove=(item,)))
    assert adapter.observe() == frozenset()


def check_survey(
    survey: Survey,
    links: Adapter,
    bridge: Bridge,
    veth: Veth,
    on_bridge: Sequence[HostObject],
    enter: Callable[[], object],
) -> None:
    """See links of ours come and go; `enter` moves the veth's container end into a sandbox."""
    survey.docker_acts()
    assert survey.facts() == survey.facts()
    assert not survey.disturbed(), "nobody has done anything"
    assert survey.links() == survey.occupied() == frozenset()
    objects = (bridge, veth, *on_bridge)
    links.apply(Plan(add=objects))
    assert survey.links() == {bridge.name, veth.name, veth.container_end}
    assert survey.look([veth.name]) == {veth}
    assert survey.look([bridge.name, "fl-absent"]) == {bridge, *on_bridge}
    assert survey.look([]) == frozenset()
    assert survey.occupied() == frozenset()
    enter()
    assert survey.links() == {bridge.name, veth.name}
    assert survey.occupied() == {veth.name}
    assert survey.residents(frozenset()) == ()
    links.apply(Plan(remove=tuple(reversed(objects))))
    assert survey.links() == survey.occupied() == frozenset()


def check_source(source: Source, state: State, facts: Facts) -> None:
    """Ask twice with nothing happening in between: the answers are the same."""
    source.begin(state, facts)
    stamp, status = source.stamp(), source.current(state, facts)
    assert source.current(state, facts) == status
    assert source.stamp() == stamp
    assert bool(status.lease) == (status.phase == "held")


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
