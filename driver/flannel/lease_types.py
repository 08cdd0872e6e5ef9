"""What a step about this host's lease begins with, and what it ends in. No I/O, no clock.

Imports `flannel`, `peers`, `registry`, `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network

from driver.flannel.etcd.registry import Entry
from driver.flannel.records import LeaseRecord, ParseCache, lease_key, lease_range, read_leases
from driver.model.facts import LocalAddresses
from driver.model.records import Overlay

Choose = Callable[[Sequence[IPv4Network]], IPv4Network]

Identity = tuple[IPv4Address, str | None]  # a host by its public IP and its MAC


@dataclass(frozen=True, slots=True)
class ThisHost:
    """This host, for its lease and against others'. `mac`: None for a backend without VTEP.

    `subnet`: its own, which no peer may overlap. `local`: addresses it uses itself, which no peer
    may cover. `in_use`: networks use its subnet, which then is not given up for another.
    """

    public_ip: IPv4Address
    mac: str | None
    subnet: IPv4Network | None = None
    local: LocalAddresses = field(default_factory=LocalAddresses)
    in_use: bool = False


def identity(of: LeaseRecord | ThisHost) -> Identity:
    """Return what tells one host from another."""
    return of.public_ip, of.mac


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a lease lasts, in seconds, and how long before its end it is renewed."""

    ttl_s: int = 86400
    margin_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease of ours as it was last seen in etcd. `due`: time of the renewal, seconds."""

    subnet: IPv4Network
    revision: int
    due: float
    value: str


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What one step has to know of the steps before.

    `subnet`: the one had last. `rival`: a host that has our lease, with our public IP or our MAC.
    `elder`: one we yield to, for it had the lease before us, and until when. `moved`: the lease
    held is for another subnet than before.
    """

    overlay: Overlay | None = None
    subnet: IPv4Network | None = None
    held: HeldLease | None = None
    rival: Identity | None = None
    elder: tuple[Identity, float] | None = None
    moved: bool = False


@dataclass(frozen=True, eq=False)
class EtcdView:
    """What etcd has: config, or its fault, and all where leases lie; what is `known` of those."""

    prefix: str
    config: Overlay | None
    config_fault: str
    entries: Mapping[str, Entry] = field(default_factory=dict)
    known: ParseCache = field(default_factory=dict)

    @cached_property
    def leases(self) -> tuple[list[LeaseRecord], list[str]]:
        """Read the leases; see `read_leases`."""
        return read_leases((self.entries[key] for key in sorted(self.entries)), self.known)

    def record(self, key: str) -> LeaseRecord | None:
        """Find a readable lease by its key."""
        return next((r for r in self.leases[0] if r.key == key), None)

    def of(self, own: ThisHost, subnet: IPv4Network | None = None) -> list[LeaseRecord]:
        """List the leases with this host's public IP, in key order.

        One of `subnet` with its MAC is its own, too: the host may have got another public IP.
        """
        folder = f"{lease_range(self.prefix)}/"
        mine = [
            r
            for r in self.leases[0]
            if r.public_ip == own.public_ip or (r.subnet == subnet and r.mac == own.mac)
        ]
        return [r for r in mine if r.key == folder + lease_key(r.subnet, r.subnet6)]

    def key(self, subnet: IPv4Network) -> str:
        """Give the key of a subnet's lease."""
        return f"{lease_range(self.prefix)}/{lease_key(subnet)}"


@dataclass(frozen=True, slots=True)
class Write:
    """Write our lease, if its key is still of this revision; 0 for a key that is not there."""

    key: str
    subnet: IPv4Network
    revision: int
    value: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a lease of ours that the config does not allow any more."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done now, and how objects stand until it is. `subnet` is the one to use."""

    state: PolicyState
    phase: str
    subnet: IPv4Network | None = None
    action: Write | Delete | None = None
    problems: tuple[str, ...] = ()
