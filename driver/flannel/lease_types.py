"""What the lease policy decides on, and what it decides. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network

from driver.flannel.etcd.registry import Entry
from driver.flannel.records import (
    Identity,
    LeaseRecord,
    ParseCache,
    lease_key,
    lease_range,
    read_leases,
)
from driver.model.facts import LocalAddresses
from driver.model.records import Overlay, State, short

SHOWN_USERS = 8
REMOVE = "`docker network rm`, or `docker compose down` for a compose project"
Choose = Callable[[Sequence[IPv4Network]], IPv4Network]


def users(state: State) -> str:
    """Return what uses this host's subnet, in words; "" if nothing does."""
    blocks = [pool for pool in state.pools.values() if state.network_of(pool.id) is None]
    words = [f"network {short(network.id)}" for network in state.networks.values()]
    words += [f"block {pool.cidr} of no network here" for pool in blocks]
    more = [f"{len(words) - SHOWN_USERS} more"] if len(words) > SHOWN_USERS else []
    return ", ".join(words[:SHOWN_USERS] + more)


@dataclass(frozen=True, slots=True)
class ThisHost:
    """This host, as far as leases are concerned. `mac`: its VTEP's; None with host-gw.

    `subnet`: its own, which no peer may overlap. `local`: addresses it uses itself, which no peer
    may cover. `in_use`: what uses the subnet, so that it is not exchanged for another: see `users`.
    """

    public_ip: IPv4Address
    mac: str | None
    subnet: IPv4Network | None = None
    local: LocalAddresses = field(default_factory=LocalAddresses)
    in_use: str = ""

    @property
    def identity(self) -> Identity:
        """What tells this host from others."""
        return self.public_ip, self.mac


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a lease lasts, and how long before its end it is renewed, in seconds."""

    ttl_s: int = 86400
    margin_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class HeldLease:
    """Our lease as it was last seen in etcd. `due`: when to renew it, in the clock's seconds."""

    subnet: IPv4Network
    revision: int
    due: float
    value: str


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What a step remembers of the steps before.

    `subnet`: the last one leased. `moved`: it is not the one before it. `rival`: another host that
    has our lease, with our public IP or our MAC. `elder`: one that had the lease before us, so that
    we yield to it, and until when.
    """

    overlay: Overlay | None = None
    subnet: IPv4Network | None = None
    held: HeldLease | None = None
    rival: Identity | None = None
    elder: tuple[Identity, float] | None = None
    moved: bool = False


@dataclass(frozen=True, eq=False)
class EtcdView:
    """What etcd holds of the flannel network: config, or what is wrong with it, and lease keys."""

    prefix: str
    config: Overlay | None
    config_fault: str
    entries: Mapping[str, Entry] = field(default_factory=dict)
    cache: ParseCache = field(default_factory=dict)

    @cached_property
    def leases(self) -> tuple[list[LeaseRecord], list[str]]:
        """The leases in key order, and what is wrong with other entries; see `read_leases`."""
        return read_leases((self.entries[key] for key in sorted(self.entries)), self.cache)

    def record(self, key: str) -> LeaseRecord | None:
        """Return the lease of a key, None if it cannot be read."""
        return next((r for r in self.leases[0] if r.key == key), None)

    def of(self, host: ThisHost, subnet: IPv4Network | None = None) -> list[LeaseRecord]:
        """List the leases with this host's public IP, in key order.

        A lease of `subnet` with its MAC counts too: the host may have got another public IP.
        """
        folder = f"{lease_range(self.prefix)}/"
        mine = [
            r
            for r in self.leases[0]
            if r.public_ip == host.public_ip or (r.subnet == subnet and r.mac == host.mac)
        ]
        return [r for r in mine if r.key == folder + lease_key(r.subnet, r.subnet6)]

    def key(self, subnet: IPv4Network) -> str:
        """Return the key of a subnet's lease."""
        return f"{lease_range(self.prefix)}/{lease_key(subnet)}"


@dataclass(frozen=True, slots=True)
class Write:
    """Write our lease if its key still has this revision; 0: if there is no such key."""

    key: str
    subnet: IPv4Network
    revision: int
    value: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete our lease if its key still has this revision."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now. `phase` and `subnet`: what holds until that is done; see MembershipStatus."""

    state: PolicyState
    phase: str
    subnet: IPv4Network | None = None
    action: Write | Delete | None = None
    problems: tuple[str, ...] = ()
