"""What the core needs of the outside; adapters and the tests' fakes have these shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from driver.model.facts import Facts, LocalAddresses, Resident
from driver.model.firewall import Flows
from driver.model.objects import HostObject, Plan
from driver.model.records import Lease, Overlay, Peer, Record, State, Vtep


class Adapter(Protocol):
    """What makes some kinds of objects: links and routes, sockets, the nft table, iptables."""

    @property
    def kinds(self) -> tuple[type[HostObject], ...]:
        """The kinds of objects it makes."""

    def observe(self) -> frozenset[HostObject]:
        """Return what the host has of ours, and of nobody else's. Errors: HostError, OSError."""

    def apply(self, plan: Plan) -> None:
        """Carry out a plan of own kinds: removals, then the rest; idempotent.

        Errors: ExceptionGroup of FlannelError, what could be done having been done.
        """

    def close(self) -> None:
        """Let go of what is held open; the host stays as it is."""


@runtime_checkable
class Resuming(Protocol):
    """An adapter that cannot see by itself what an earlier process left."""

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Take over those of these objects that are there as an earlier process made them."""


class Firewall(Adapter, Protocol):
    """The adapter of the table and its elements: one of the backends."""

    name: str

    def disturbed(self) -> bool:
        """Whether somebody changed the firewall since we last did or looked; cheap."""

    def clear(self) -> None:
        """Remove all that this backend ever makes, whoever made it. Errors: HostError."""


class Tracker(Protocol):
    """What the kernel tracks of flows."""

    def forget(self, wrong: Sequence[Flows]) -> None:
        """Delete flows; what cannot be deleted is logged, and ends by itself."""


class Survey(Protocol):
    """What the plugin has to know of the host beyond its own objects."""

    def facts(self) -> Facts:
        """Return what the host has that is not ours."""

    def ephemeral_ports(self) -> tuple[int, int]:
        """Return the first and the last port that the kernel gives to who wants any."""

    def disturbed(self) -> bool:
        """Whether somebody changed the firewall or a setting since we last looked; cheap."""

    def docker_acts(self) -> None:
        """Note that Docker makes networks or endpoints: it has set the host up by now."""

    def look(self, links: Iterable[str]) -> frozenset[HostObject]:
        """Return what some of our links are and carry, in microseconds."""

    def links(self) -> frozenset[str]:
        """List our links by name, both ends of veth pairs, in the host's namespace."""

    def occupied(self) -> frozenset[str]:
        """List the host ends of our veths whose other end is in another network namespace."""

    def residents(self, host_ends: frozenset[str]) -> tuple[Resident, ...]:
        """Return what is at the other ends of veths whose sandboxes can be entered."""


class Journal(Protocol):
    """Where the state lives."""

    def load(self) -> State:
        """Read the state."""

    def commit(self, put: Iterable[Record], drop: Iterable[Record], *, durable: bool) -> None:
        """Write a change, all or nothing."""

    def lost(self) -> bool:
        """Whether what was written is gone, so that a change would be written to nowhere."""

    def renew(self, state: State) -> None:
        """Write the whole state anew. Errors: StoreError."""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The lease, the overlay around it, and what is wrong, a sentence each.

    `phase` names how far the lease is, for people: "held", "acquiring", "lost", … `note`: why the
    lease comes from somewhere else than the settings suggest. `refusal`: what a call is told that
    wants something of a lease that is not there; "" for the usual words. `local`: what the host
    uses itself, as the source has to know it; None: it has nothing to know.
    """

    lease: Lease | None
    phase: str
    problems: tuple[str, ...] = ()
    overlay: Overlay | None = None
    vtep: Vtep | None = None
    peers: frozenset[Peer] = frozenset()
    note: str = ""
    refusal: str = ""
    local: LocalAddresses | None = None


class Source(Protocol):
    """Where the lease comes from."""

    def begin(self, state: State, facts: Facts) -> None:
        """Start with what is stored; wait a moment for more if that is no lease."""

    def current(self, state: State, facts: Facts) -> LeaseStatus:
        """Return what the lease is now, and change nothing."""

    def taken_over(self, status: LeaseStatus) -> tuple[str, ...]:
        """Tell others of a status that is stored now. Return what failed, a sentence each."""

    def stamp(self) -> object:
        """Return a value that changes when it is worth asking again at once."""
