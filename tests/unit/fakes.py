"""Stand-ins for the clock, the journal and the source of the lease; and when a process dies."""

from __future__ import annotations

import random
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Any

from driver.errors import FlannelError
from driver.flannel.lease_types import ThisHost
from driver.flannel.membership import MembershipStatus
from driver.host.journal import records
from driver.model.facts import Facts
from driver.model.interfaces import LeaseStatus
from driver.model.records import Record, State
from tests.unit.sample import VTEP, state_of

FACTS = Facts(
    uplinks=frozenset({"br-lan"}),
    onlink=(IPv4Network("192.168.1.0/24"),),
    gates=frozenset({"nft"}),
    uplink_mtu=1450,
)


def seeded(seed: int) -> random.Random:
    """Return random numbers that are the same in every run."""
    return random.Random(seed)  # noqa: S311


class Crash(BaseException):
    """The process dies at this point: nothing of it may be caught."""


class World:
    """What the fakes of one host share: the order of events, and when the process dies."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.steps = 0
        self.crash_at = 0

    def step(self) -> None:
        """Pass one point at which the process may die."""
        self.steps += 1
        if self.steps == self.crash_at:
            raise Crash(f"step {self.steps}")

    def order(self) -> list[str]:
        """List who was called, in order."""
        return [who for who, _ in self.events]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeJournal:
    """The state in a dict. `error` is what writing ends in."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.rows: dict[tuple[str, str], Record] = {}
        self.error: FlannelError | None = None
        self.gone = False  # deleted under the plugin

    def load(self) -> State:
        return state_of(*self.rows.values())

    def lost(self) -> bool:
        return self.gone

    def renew(self, state: State) -> None:
        self.rows, self.gone = {(r.kind, r.id): r for r in records(state)}, False

    def commit(self, put: Iterable[Record], drop: Iterable[Record], *, durable: bool) -> None:
        self.world.step()
        if self.error is not None:
            raise self.error
        rows = dict(self.rows)
        for record in drop:
            rows.pop((record.kind, record.id), None)
        rows.update(((record.kind, record.id), record) for record in put)
        self.rows = rows
        self.world.events.append(("journal", durable))
        self.world.step()


class FakeSource:
    """A source of the lease that says what a test wants; without a lease unless told otherwise."""

    def __init__(self, now: LeaseStatus | None = None) -> None:
        self.now = now or LeaseStatus(None, "unreachable")

    def begin(self, _state: State, _facts: Facts) -> None:
        """Nothing is to be waited for."""

    def current(self, _state: State, _facts: Facts) -> LeaseStatus:
        return self.now

    def taken_over(self, _status: LeaseStatus) -> tuple[str, ...]:
        return ()

    def stamp(self) -> LeaseStatus:
        return self.now


class FakeMembership:
    """A membership that says what a test wants."""

    def __init__(self, status: MembershipStatus) -> None:
        self.now, self.known = status, MembershipStatus()
        self.own = ThisHost(VTEP.public_ip, VTEP.mac)

    def start(self, own: ThisHost, known: MembershipStatus) -> FakeMembership:
        self.own, self.known = own, known
        return self

    def wait_until_known(self, _wait_s: float) -> None:
        """It is known."""

    def set_host(self, own: ThisHost) -> None:
        self.own = own

    def status(self) -> MembershipStatus:
        return self.now
