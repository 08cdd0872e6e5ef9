"""The beginning of a pass: adopt what runs unknown to the state, drop what is stale."""

from __future__ import annotations

from ipaddress import IPv4Network

from driver.core import adoption
from driver.core.adoption import Adopted
from driver.core.desire import stale
from driver.core.edit import Edit
from driver.core.unknown import Seen, kept, unknown_blocks, unknown_objects
from driver.errors import Unavailable
from driver.model.facts import Resident
from driver.model.interfaces import Survey
from driver.model.objects import HostObject, Plan, Veth
from driver.model.records import Network, Record, State, short


class Takeover:
    """What passes remember about it."""

    def __init__(self, survey: Survey, state: State) -> None:
        self._survey = survey
        self.lost = state == State()  # also at the very first start; until it is stored again
        self.recalled: list[Record] = []  # to be stored before the lease's source is asked
        self.blocks: frozenset[IPv4Network] = frozenset()  # of bridges that could not be taken over
        self._unseen = frozenset[str]()  # bridges with containers whose addresses are not known
        self.described: dict[str, Resident] = {}  # by host end, as Docker describes them
        self.suspects = frozenset[tuple[str, str]]()  # stale rows, if the next pass agrees
        self._ended = frozenset[str]()  # veths that calls ended, and that may not be removed yet

    def recall(self, have: frozenset[HostObject], mtu: int | None) -> State:
        """Return this host's place in the overlay as the host shows it, for an empty state."""
        found = adoption.recall(have, mtu)
        self.recalled = [record for record in (found.lease, found.vtep) if record]
        return found

    def see(self, have: frozenset[HostObject]) -> Seen:
        """Add to `have` our links, and those of running containers."""
        links, occupied = self._survey.links(), self._survey.occupied()
        return Seen(links, occupied - self._ended, have)

    def adopt(self, edit: Edit, seen: Seen, state: State) -> Adopted:
        """Make rows for what runs unknown, and drop those that two passes found stale."""
        self._ended &= seen.links
        unknown = unknown_objects(edit.state, seen)
        names = frozenset(veth.name for veth in unknown)
        seen_inside = self._survey.residents(names) if names else ()
        residents = {**self.described, **{resident.host_end: resident for resident in seen_inside}}
        taken = adoption.adopt(edit, seen.have, unknown, residents, empty=self.lost)
        self.blocks = unknown_blocks(edit.state, seen.have)
        self._unseen = frozenset(veth.bridge for veth in unknown_objects(edit.state, seen))
        dead = list(stale(state, seen.links, seen.occupied, edit.now))
        for record, why in dead:
            if (record.kind, record.id) in self.suspects:
                edit.drop(record)
                taken.done.append(f"{why}: dropped")
        self.suspects = frozenset((record.kind, record.id) for record, _ in dead)
        return taken

    def check_seen(self, network: Network | None) -> None:
        """Refuse to choose an address of a network where an unknown one may be in use.

        Errors: Unavailable.
        """
        if network is not None and network.bridge in self._unseen:
            raise Unavailable(
                f"network {short(network.id)} has a running container whose address is not known; "
                "`docker flannel adopt` asks Docker for it"
            )

    def written(self, state: State) -> None:
        """Note that what was taken over is stored, which is complete once there is a lease."""
        if state.lease is not None:
            self.lost, self.recalled = False, []

    def kept(self, state: State, seen: Seen, want: frozenset[HostObject]) -> frozenset[HostObject]:
        """Return what stays on the host though it is not in `want`."""
        return kept(state, seen, want, everything=self.lost)

    def note_removed(self, plan: Plan) -> None:
        """Note which veths a call ends: they no longer belong to a container."""
        self._ended |= {item.name for item in plan.remove if isinstance(item, Veth)}
        self._ended -= {item.name for item in plan.add if isinstance(item, Veth)}
