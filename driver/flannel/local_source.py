"""The lease without etcd: a subnet of our own choice, or the one in flanneld's file.

From the stored state, a source derives what the lease is now, and what is wrong. It never guesses:
if something cannot be read, the stored lease stays.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from driver.errors import Exhausted, FlannelError
from driver.flannel.lease_types import REMOVE, users
from driver.flannel.subnet_env import flannelds_lease, is_ours, mark
from driver.model.facts import Facts
from driver.model.interfaces import LeaseStatus
from driver.model.records import Lease, State

DEFAULT_MTU = 1500  # bytes, when no default route tells the uplink's
Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class LocalSource:
    """The settings that decide on the lease; `wanted` is "auto", "standalone" or "subnet-file"."""

    wanted: str
    network: IPv4Network
    subnet_len: int
    file: Path

    def begin(self, state: State, facts: Facts) -> None:
        """Mark a lease file that an earlier version of the plugin wrote."""
        if self.wanted == "auto" and facts != Facts():  # else nobody could look for a flanneld
            mark(self.file, state.lease, alone=not facts.flanneld.sign(None))

    def taken_over(self, _status: LeaseStatus) -> tuple[str, ...]:
        """Do nothing: nobody else follows this lease."""
        return ()

    def current(self, state: State, facts: Facts) -> LeaseStatus:
        """Return the lease, and what is wrong.

        While blocks are in use the source stays, and a standalone lease stays as it is.
        """
        lease, problem = self._lease(state, facts)
        phase = "held" if lease else "waiting"
        return LeaseStatus(lease, phase, (problem,) if problem else (), vtep=state.vtep)

    def _lease(self, state: State, facts: Facts) -> tuple[Lease | None, str]:
        stored, in_use = state.lease, users(state)
        source = self._source(stored, facts)
        try:
            if stored is not None and in_use and stored.source != source:
                if self.wanted != "auto" or stored.source == "etcd":
                    return self._changed(stored, source, in_use)
                source = stored.source
            if source == "subnet-file":
                return self._flannelds(stored, facts, in_use)
            return self._standalone(stored, facts, in_use)
        except FlannelError as error:
            return (stored if stored and stored.source == source else None), str(error)

    def _changed(self, stored: Lease, source: str, in_use: str) -> tuple[Lease, str]:
        """Keep a lease that networks use, unless a flanneld has taken over what was etcd's."""
        if (stored.source, source) == ("etcd", "subnet-file"):
            with suppress(FlannelError):
                found = flannelds_lease(self.file)
                if found.subnet == stored.subnet:
                    return found, ""
        return stored, kept(stored, f"a lease from {source}", in_use)

    def stamp(self) -> Stamp:
        """Return a value that changes when the file is replaced, written or removed."""
        return file_stamp(self.file)

    def _source(self, stored: Lease | None, facts: Facts) -> str:
        if self.wanted != "auto":
            return self.wanted
        alone = not facts.flanneld.sign(None)
        there = self.file.exists() and not is_ours(self.file, stored, alone=alone)
        return "subnet-file" if there else "standalone"

    def _flannelds(
        self, stored: Lease | None, facts: Facts, in_use: str
    ) -> tuple[Lease | None, str]:
        """Read flanneld's lease; one that overlaps a LAN of the host is taken only if in use."""
        lease = flannelds_lease(self.file)
        fault = facts.lan_fault(lease)
        if fault and not (in_use and stored == lease):
            return stored if in_use else None, fault
        return lease, fault

    def _standalone(self, stored: Lease | None, facts: Facts, in_use: str) -> tuple[Lease, str]:
        if stored is not None and stored.source == "standalone":
            as_set = (stored.network, stored.subnet.prefixlen) == (self.network, self.subnet_len)
            if as_set or in_use:
                wish = f"a lease of /{self.subnet_len} from {self.network}"
                return stored, "" if as_set else kept(stored, wish, in_use)
        mtu = facts.uplink_mtu or DEFAULT_MTU
        for subnet in self.network.subnets(new_prefix=self.subnet_len):
            if not any(subnet.overlaps(other) for other in facts.onlink):
                return Lease(self.network, subnet, mtu, "standalone"), ""
        raise Exhausted(
            f"every /{self.subnet_len} of {self.network} overlaps addresses or routes of this host;"
            " set another DOCKER_FLANNEL_NETWORK"
        )


def file_stamp(file: Path) -> Stamp:
    """Return a value that changes when a file is replaced, written or removed."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def kept(stored: Lease, wish: str, in_use: str) -> str:
    """Return why a lease stays although the settings ask for another; `in_use`: see `users`."""
    return (
        f"the settings ask for {wish}, but {stored.subnet} from {stored.source} is in use: "
        f"{in_use}; it is kept until they are removed ({REMOVE})"
    )
