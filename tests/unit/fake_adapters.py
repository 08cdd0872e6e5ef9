"""Adapters that keep their objects in a dict, and the survey of their host.

They behave like the real ones where the reconciler can tell: an address needs its bridge, an
element its table; what hangs on an object goes with it. Tests make them fail and forget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from driver.errors import Conflict, FlannelError, HostError
from driver.model.facts import Facts, Resident
from driver.model.firewall import FirewallEntry, ForwardGate, Ruleset
from driver.model.identity import Key
from driver.model.objects import (
    RANK,
    Bridge,
    Fdb,
    HostObject,
    LinkAddress,
    LoopbackGuard,
    Neighbour,
    PeerRoute,
    Plan,
    PortSocket,
    SandboxAddress,
    Sysctl,
    UnreachableRoute,
    Veth,
    Vxlan,
)
from driver.model.records import replace
from tests.unit.fakes import FACTS, World


def nothing(_item: HostObject) -> FlannelError | None:
    """Refuse nothing."""
    return None


class FakeAdapter:
    """One side of the host, in a dict.

    `refuse` gives the error that making an object shall end in; `stuck` are the keys of objects
    that cannot be removed; `blind` is the error that looking ends in; `looks` counts.
    """

    kinds: ClassVar[tuple[type[HostObject], ...]] = tuple(RANK)

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.objects: dict[Key, HostObject] = {}
        self.refuse: Callable[[HostObject], FlannelError | None] = nothing
        self.stuck: set[Key] = set()
        self.blind: FlannelError | None = None
        self.looks = 0

    def observe(self) -> frozenset[HostObject]:
        self.looks += 1
        if self.blind is not None:
            raise self.blind
        return frozenset(list(self.objects.values()))

    def apply(self, plan: Plan) -> None:
        self.world.step()
        self.world.events.append(("adapter", plan))
        wanted = sorted(plan.new(), key=lambda t: RANK[type(t)])
        errors: list[FlannelError] = []
        for item, act in [(t, self._remove) for t in plan.remove] + [
            (t, self._ensure) for t in wanted
        ]:
            assert isinstance(item, self.kinds), f"{item} is none of this adapter's kinds"
            self.world.step()
            try:
                act(item)
            except FlannelError as error:
                errors.append(error)
        self.world.step()
        if errors:
            raise ExceptionGroup("refused", errors)

    def close(self) -> None:
        """Leave everything as it is."""

    def lose(self, *kinds: type[HostObject]) -> None:
        """Take objects away behind the plugin's back."""
        for item in [t for t in self.objects.values() if isinstance(t, kinds)]:
            self._take_away(item)

    def plant(self, *objects: HostObject) -> None:
        """Put objects there behind the plugin's back."""
        self.objects.update((item.key, item) for item in objects)

    def _ensure(self, item: HostObject) -> None:
        error = self.refuse(item)
        if error is not None:
            raise error
        parent = _parent(item)
        if parent is not None and parent not in self.objects:
            raise HostError(f"{item} needs {parent}")
        self.objects[item.key] = item

    def _remove(self, item: HostObject) -> None:
        if item.key in self.stuck:
            raise HostError(f"{item.key} cannot be removed")
        self._take_away(item)

    def _take_away(self, item: HostObject) -> None:
        self.objects.pop(item.key, None)
        for child in [t for t in self.objects.values() if _parent(t) == item.key]:
            if isinstance(child, Veth):
                self.objects[child.key] = replace(child, bridge="")
            else:
                del self.objects[child.key]


def _parent(item: HostObject) -> Key | None:
    match item:
        case Sysctl(link="all"):
            return None
        case LinkAddress() | LoopbackGuard() | Sysctl():
            return Bridge.key_of(item.link)
        case Veth():
            return Bridge.key_of(item.bridge)
        case FirewallEntry():
            return Ruleset.key_of()
    return None


class FakeKernel(FakeAdapter):
    """Links, addresses, settings and routes. `moved` are container ends that are in a sandbox."""

    kinds = (Bridge, Veth, LinkAddress, LoopbackGuard, Sysctl, UnreachableRoute)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.moved: set[str] = set()

    def links(self) -> frozenset[str]:
        names = set()
        for item in list(self.objects.values()):
            if isinstance(item, Bridge):
                names.add(item.name)
            elif isinstance(item, Veth):
                names |= {item.name, item.container_end} - self.moved
        return frozenset(names)


class FakePorts(FakeAdapter):
    """Port sockets. `taken` are ports of other programs."""

    kinds = (PortSocket,)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.taken: set[int] = set()
        self.refuse = self._taken

    def _taken(self, item: HostObject) -> FlannelError | None:
        if isinstance(item, PortSocket) and item.port in self.taken:
            words = f"Bind for {item.ip}:{item.port} failed: port is already allocated"
            return Conflict(words, (item.proto, item.ip, item.port))
        return None


class FakeSandboxes(FakeAdapter):
    """Addresses in sandboxes, which can be set where Docker has put the interface."""

    kinds = (SandboxAddress,)

    def __init__(self, kernel: FakeKernel) -> None:
        super().__init__(kernel.world)
        self._kernel = kernel

    def observe(self) -> frozenset[HostObject]:
        return frozenset(t for t in super().observe() if self._moved(t))

    def _moved(self, item: HostObject) -> bool:
        veth = self._kernel.objects.get(Veth.key_of(*item.key[1:]))
        return isinstance(veth, Veth) and veth.container_end in self._kernel.moved

    def _ensure(self, item: HostObject) -> None:
        if self._moved(item):
            super()._ensure(item)


class FakeNft(FakeAdapter):
    """The table and its elements."""

    kinds = (Ruleset, FirewallEntry)


class FakeGate(FakeAdapter):
    """Forward gates."""

    kinds = (ForwardGate,)


class FakeOverlay(FakeAdapter):
    """The device and the routes to peers. `looks` counts."""

    kinds = (Vxlan, Neighbour, Fdb, PeerRoute)
    looks = 0

    def observe(self) -> frozenset[HostObject]:
        self.looks += 1
        return super().observe()


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

    def ephemeral_ports(self) -> tuple[int, int]:
        return 32768, 60999

    def links(self) -> frozenset[str]:
        return self._kernel.links()

    def occupied(self) -> frozenset[str]:
        veths = (t for t in list(self._kernel.objects.values()) if isinstance(t, Veth))
        return frozenset(t.name for t in veths if t.container_end in self._kernel.moved)

    def docker_acts(self) -> None:
        """Do nothing: a test says what the facts are."""

    def look(self, links: Iterable[str]) -> frozenset[HostObject]:
        objects = self._kernel.observe()
        mine = [t for t in objects if not isinstance(t, LoopbackGuard)]
        return frozenset(t for t in mine if t.key[1] in set(links))

    def residents(self, host_ends: frozenset[str]) -> tuple[Resident, ...]:
        return tuple(r for r in self.inside if r.host_end in host_ends)
