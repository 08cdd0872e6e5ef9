"""The interfaces of what the core uses; adapters and the tests' fakes implement them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from driver.model.facts import Facts, LocalAddresses, Resident
from driver.model.firewall import Flows
from driver.model.objects import HostObject, Plan
from driver.model.records import Lease, Overlay, Peer, Record, State, Vtep


class Adapter(Protocol):
    """Makes some kinds of objects: links and routes, sockets, the nft table, iptables."""

    @property
    def kinds(self) -> tuple[type[HostObject], ...]:
        """The kinds of objects it makes."""

    def observe(self) -> frozenset[HostObject]:
        """Return our objects on the host, and nobody else's. Errors: HostError, OSError."""

    def apply(self, plan: Plan) -> None:
        """Apply a plan of own kinds: removals first; idempotent.

        Errors: ExceptionGroup of FlannelError, after all that was possible.
        """

    def close(self) -> None:
        """Close what is held open; the host stays as it is."""


@runtime_checkable
class Resuming(Protocol):
    """An adapter that does not itself recognize what an earlier process left."""

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Take over those of these objects that an earlier process left."""


class Firewall(Adapter, Protocol):
    """The adapter of the table and its elements: one of the backends."""

    name: str

    def disturbed(self) -> bool:
        """Whether somebody else changed the firewall since our last change or look; cheap."""

    def clear(self) -> None:
        """Remove all that this backend ever makes. Errors: HostError."""


class Tracker(Protocol):
    """The flows that the kernel tracks."""

    def forget(self, wrong: Sequence[Flows]) -> None:
        """Delete flows; log failures: such a flow ends by itself."""


class Survey(Protocol):
    """Looks at the host beyond the plugin's own objects."""

    def facts(self) -> Facts:
        """Return what the host has that is not ours."""

    def ephemeral_ports(self) -> tuple[int, int]:
        """Return the first and the last port of those that the kernel assigns."""

    def disturbed(self) -> bool:
        """Whether somebody changed the firewall or a setting since we last looked; cheap."""

    def docker_acts(self) -> None:
        """Note that Docker makes networks or endpoints, so it has set up the host by now."""

    def look(self, links: Iterable[str]) -> frozenset[HostObject]:
        """Return some of our links with what belongs on them, in microseconds."""

    def links(self) -> frozenset[str]:
        """Return the names of our links, also both ends of veths, in the host's namespace."""

    def occupied(self) -> frozenset[str]:
        """Return the host ends of our veths whose other end is in another network namespace."""

    def residents(self, host_ends: frozenset[str]) -> tuple[Resident, ...]:
        """Return the container ends of veths whose sandboxes can be entered."""


class Journal(Protocol):
    """Stores the state."""

    def load(self) -> State:
        """Read the state."""

    def commit(self, put: Iterable[Record], drop: Iterable[Record], *, durable: bool) -> None:
        """Write a change, all or nothing."""

    def lost(self) -> bool:
        """Whether the file is gone, so that a change would be written nowhere."""

    def renew(self, state: State) -> None:
        """Write the whole state again. Errors: StoreError."""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The lease, the overlay around it, and what is wrong, a sentence each.

    `phase`: for people: "held", "acquiring", "lost", … `note`: why the lease comes from elsewhere
    than the settings suggest. `refusal`: the error of a call that needs the missing lease; "" for
    the usual one. `local`: the addresses that the host uses itself; None if the source need not
    know them.
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
    """Provides the lease."""

    def begin(self, state: State, facts: Facts) -> None:
        """Start with what is stored; if that is no lease, wait a moment for one."""

    def current(self, state: State, facts: Facts) -> LeaseStatus:
        """Return the lease as it is now; change nothing."""

    def taken_over(self, status: LeaseStatus) -> tuple[str, ...]:
        """Publish a status that is stored now. Return the failures, a sentence each."""

    def stamp(self) -> object:
        """Return a value that changes when `current` should be asked again at once."""
