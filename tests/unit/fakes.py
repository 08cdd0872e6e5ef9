"""Stand-ins for the host, the journal, the survey and the clock.

They behave like the real ones where the reconciler can tell: an address needs its bridge, an
element its table; what hangs on a thing goes with it. Tests make them fail, forget and die.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network
from typing import Any, ClassVar

from driver.errors import Conflict, FlannelError, HostError
from driver.model.facts import Facts, Resident
from driver.model.objects import (
    RANK,
    Address,
    Bridge,
    Element,
    Gate,
    Key,
    Localhost,
    Plan,
    PortHold,
    Route,
    SandboxAddress,
    Sysctl,
    Table,
    Thing,
    Veth,
)
from driver.model.records import replace

FACTS = Facts(
    uplinks=frozenset({"br-lan"}),
    onlink=(IPv4Network("192.168.1.0/24"),),
    gates=frozenset({"nft"}),
    uplink_mtu=1450,
)
FIELDS = ("pools", "freed", "holds", "claims", "networks", "endpoints")


def seeded(seed: int) -> random.Random:
    """Give random numbers that are the same in every run."""
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


def nothing(_thing: Thing) -> FlannelError | None:
    """Refuse nothing."""
    return None


class FakeHost:
    """One side of the host, in a dict.

    `refuse` gives the error that making a thing shall end in; `stuck` are the keys of things that
    cannot be removed; `blind` is the error that looking ends in.
    """

    kinds: ClassVar[tuple[type[Thing], ...]] = tuple(RANK)

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.things: dict[Key, Thing] = {}
        self.refuse: Callable[[Thing], FlannelError | None] = nothing
        self.stuck: set[Key] = set()
        self.blind: FlannelError | None = None

    def observe(self) -> frozenset[Thing]:
        if self.blind is not None:
            raise self.blind
        return frozenset(list(self.things.values()))

    def apply(self, plan: Plan) -> None:
        self.world.step()
        self.world.events.append(("host", plan))
        wanted = sorted((*plan.add, *(new for _, new in plan.change)), key=lambda t: RANK[type(t)])
        errors: list[FlannelError] = []
        for thing, act in [(t, self._remove) for t in plan.remove] + [
            (t, self._ensure) for t in wanted
        ]:
            assert isinstance(thing, self.kinds), f"{thing} is none of this host's kinds"
            self.world.step()
            try:
                act(thing)
            except FlannelError as error:
                errors.append(error)
        self.world.step()
        if errors:
            raise ExceptionGroup("refused", errors)

    def close(self) -> None:
        """Leave everything as it is."""

    def lose(self, *kinds: type[Thing]) -> None:
        """Take things away behind the plugin's back."""
        for thing in [t for t in self.things.values() if isinstance(t, kinds)]:
            self._take_away(thing)

    def plant(self, *things: Thing) -> None:
        """Put things there behind the plugin's back."""
        self.things.update((thing.key, thing) for thing in things)

    def _ensure(self, thing: Thing) -> None:
        error = self.refuse(thing)
        if error is not None:
            raise error
        parent = _parent(thing)
        if parent is not None and parent not in self.things:
            raise HostError(f"{thing} needs {parent}")
        self.things[thing.key] = thing

    def _remove(self, thing: Thing) -> None:
        if thing.key in self.stuck:
            raise HostError(f"{thing.key} cannot be removed")
        self._take_away(thing)

    def _take_away(self, thing: Thing) -> None:
        self.things.pop(thing.key, None)
        for child in [t for t in self.things.values() if _parent(t) == thing.key]:
            if isinstance(child, Veth):
                self.things[child.key] = replace(child, bridge="")
            else:
                del self.things[child.key]


def _parent(thing: Thing) -> Key | None:
    match thing:
        case Sysctl(link="all"):
            return None
        case Address() | Localhost() | Sysctl():
            return Bridge.key_of(thing.link)
        case Veth():
            return Bridge.key_of(thing.bridge)
        case Element():
            return Table.key_of()
    return None


class FakeKernel(FakeHost):
    """Links, addresses, settings and routes. `moved` are container ends that are in a sandbox."""

    kinds = (Bridge, Veth, Address, Localhost, Sysctl, Route)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.moved: set[str] = set()

    def links(self) -> frozenset[str]:
        names = set()
        for thing in list(self.things.values()):
            if isinstance(thing, Bridge):
                names.add(thing.name)
            elif isinstance(thing, Veth):
                names |= {thing.name, thing.container_end} - self.moved
        return frozenset(names)


class FakePorts(FakeHost):
    """Port holds. `taken` are ports of other programs."""

    kinds = (PortHold,)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.taken: set[int] = set()
        self.refuse = self._taken

    def _taken(self, thing: Thing) -> FlannelError | None:
        if isinstance(thing, PortHold) and thing.port in self.taken:
            words = f"Bind for {thing.ip}:{thing.port} failed: port is already allocated"
            return Conflict(words, (thing.proto, thing.ip, thing.port))
        return None


class FakeSandboxes(FakeHost):
    """Addresses in sandboxes, which can be set where Docker has put the interface."""

    kinds = (SandboxAddress,)

    def __init__(self, kernel: FakeKernel) -> None:
        super().__init__(kernel.world)
        self._kernel = kernel

    def observe(self) -> frozenset[Thing]:
        return frozenset(t for t in super().observe() if self._moved(t))

    def _moved(self, thing: Thing) -> bool:
        veth = self._kernel.things.get(Veth.key_of(*thing.key[1:]))
        return isinstance(veth, Veth) and veth.container_end in self._kernel.moved

    def _ensure(self, thing: Thing) -> None:
        if self._moved(thing):
            super()._ensure(thing)


class FakeNft(FakeHost):
    """The table and its elements."""

    kinds = (Table, Element)


class FakeGate(FakeHost):
    """The gates."""

    kinds = (Gate,)


class FakeSurvey:
    """The facts that a test says, and the links of the fake kernel."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.now = FACTS
        self.blind: FlannelError | None = None
        self.changed = False
        self.inside: list[Resident] = []  # what is seen in sandboxes, if anybody looks
        self._kernel = kernel

    def disturbed(self) -> bool:
        return self.changed

    def facts(self) -> Facts:
        if self.blind is not None:
            raise self.blind
        return self.now

    def links(self) -> frozenset[str]:
        return self._kernel.links()

    def occupied(self) -> frozenset[str]:
        veths = (t for t in list(self._kernel.things.values()) if isinstance(t, Veth))
        return frozenset(t.name for t in veths if t.container_end in self._kernel.moved)

    def docker_acts(self) -> None:
        """Know it anyway."""

    def look(self, links: Iterable[str]) -> frozenset[Thing]:
        things = self._kernel.observe()
        mine = [t for t in things if not isinstance(t, Localhost)]
        return frozenset(t for t in mine if t.key[1] in set(links))

    def residents(self, host_ends: frozenset[str]) -> tuple[Resident, ...]:
        return tuple(r for r in self.inside if r.host_end in host_ends)
