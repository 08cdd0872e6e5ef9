"""What the host should have, as data, and the difference of two such sets. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import ClassVar, Literal, get_args

from driver.model.firewall import ENTRIES, FirewallEntry, ForwardGate, Ruleset
from driver.model.identity import Identified, Key
from driver.model.records import Proto

ALL = "all"  # in the place of a link: for every link, and net.ipv4.ip_forward is its forwarding


@dataclass(frozen=True, slots=True)
class Bridge(Identified):
    """A network's bridge, up. Its MAC is set, or else it would change with the bridge's ports."""

    name: str
    mac: str
    mtu: int
    owner: str
    identity: ClassVar[tuple[str, ...]] = ("name",)


@dataclass(frozen=True, slots=True)
class Veth(Identified):
    """An endpoint's veth pair: the host end, up, on the bridge.

    The container end's name and MAC count only when the pair is made: Docker moves and renames it.
    `ips`: the addresses behind that MAC.
    """

    name: str
    bridge: str
    mtu: int
    hairpin: bool
    owner: str
    container_end: str = field(compare=False)
    mac: str = field(compare=False)
    ips: tuple[IPv4Address, ...] = field(default=(), compare=False)
    identity: ClassVar[tuple[str, ...]] = ("name",)


@dataclass(frozen=True, slots=True)
class Vxlan(Identified):
    """This host's VTEP as a device, up, sending by `parent` from the address `local`.

    `vni`, `port` and `gbp` cannot be changed: if they differ, the device is made again.
    """

    name: str
    vni: int
    port: int
    local: IPv4Address
    parent: str
    mac: str
    mtu: int
    gbp: bool
    learning: bool
    identity: ClassVar[tuple[str, ...]] = ("name",)


@dataclass(frozen=True, slots=True)
class LinkAddress(Identified):
    """An address of one of our links."""

    link: str
    ip: IPv4Interface
    identity: ClassVar[tuple[str, ...]] = ("link", "ip")


@dataclass(frozen=True, slots=True)
class LoopbackGuard(Identified):
    """A bridge's guard of 127.0.0.0/8; `routed`: 127.0.0.1:PORT on the host leads there."""

    link: str
    routed: bool
    identity: ClassVar[tuple[str, ...]] = ("link",)
    isolates: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Sysctl(Identified):
    """A value in /proc/sys/net/<family>/conf/<link>/; it goes with the link, except for `ALL`."""

    link: str
    family: Literal["ipv4", "ipv6"]
    name: str
    value: str
    identity: ClassVar[tuple[str, ...]] = ("link", "family", "name")
    isolates: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Neighbour(Identified):
    """The MAC behind an overlay address, permanent: nobody answers ARP there."""

    link: str
    ip: IPv4Address
    mac: str
    identity: ClassVar[tuple[str, ...]] = ("link", "ip")


@dataclass(frozen=True, slots=True)
class Fdb(Identified):
    """The underlay address behind a VTEP's MAC, permanent; leases with one MAC share it."""

    link: str
    mac: str
    dst: IPv4Address
    identity: ClassVar[tuple[str, ...]] = ("link", "mac")


@dataclass(frozen=True, slots=True)
class UnreachableRoute(Identified):
    """An `unreachable` route: packets for unused addresses must not leave by the uplink."""

    dst: IPv4Network
    identity: ClassVar[tuple[str, ...]] = ("dst",)
    isolates: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class PeerRoute(Identified):
    """The route to a peer's subnet.

    With `onlink` it leads through our VXLAN device, whose prefixes do not contain the gateway; else
    directly over the underlay.
    """

    dst: IPv4Network
    via: IPv4Address
    link: str
    onlink: bool
    identity: ClassVar[tuple[str, ...]] = ("dst",)


@dataclass(frozen=True, slots=True)
class SandboxAddress(Identified):
    """A container's lease address beside Docker's, on its interface inside its `sandbox` (a path).

    `link` is the host end of the interface's veth. `via` is the gateway to `overlay`, with the
    address as source; both are None on an internal network.
    """

    link: str
    sandbox: str
    ip: IPv4Interface
    overlay: IPv4Network | None
    via: IPv4Address | None
    identity: ClassVar[tuple[str, ...]] = ("link",)


@dataclass(frozen=True, slots=True)
class PortSocket(Identified):
    """A socket that reserves a host port. `owner`: the endpoint's id."""

    proto: Proto
    ip: IPv4Address
    port: int
    owner: str
    identity: ClassVar[tuple[str, ...]] = ("proto", "ip", "port")


# In the order in which they are made; they are removed in reverse.
HostObject = (
    Vxlan | Neighbour | Fdb | PeerRoute | Bridge | Veth | LinkAddress | Sysctl | UnreachableRoute
    | LoopbackGuard | SandboxAddress | PortSocket
    | Ruleset | FirewallEntry | ForwardGate
)  # fmt: skip
Kinds = tuple[type[HostObject], ...]
RANK: dict[type[HostObject], int] = {kind: rank for rank, kind in enumerate(get_args(HostObject))}
RANK |= dict.fromkeys(ENTRIES, RANK[FirewallEntry])


@dataclass(frozen=True, slots=True)
class Plan:
    """A difference to carry out: `add` in rank order, `remove` in reverse, `change` (old, new)."""

    add: tuple[HostObject, ...] = ()
    change: tuple[tuple[HostObject, HostObject], ...] = ()
    remove: tuple[HostObject, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.change or self.remove)

    def only(self, kinds: Kinds) -> Plan:
        """Return the part that concerns some kinds of objects."""
        return self._part(lambda item: isinstance(item, kinds))

    def without(self, keys: Iterable[Key]) -> Plan:
        """Return the plan without the objects with these keys."""
        out = frozenset(keys)
        return self._part(lambda item: item.key not in out) if out else self

    def _part(self, keep: Callable[[HostObject], bool]) -> Plan:
        return Plan(
            tuple(filter(keep, self.add)),
            tuple(pair for pair in self.change if keep(pair[0])),
            tuple(filter(keep, self.remove)),
        )

    def inverse(self) -> Plan:
        """Return the plan that undoes this one."""
        return Plan(
            tuple(reversed(self.remove)),
            tuple((new, old) for old, new in self.change),
            tuple(reversed(self.add)),
        )

    def old(self) -> tuple[HostObject, ...]:
        """Return what is removed, and what changed objects were."""
        return (*self.remove, *(old for old, _ in self.change))

    def new(self) -> tuple[HostObject, ...]:
        """Return what is added, and what changed objects become."""
        return (*self.add, *(new for _, new in self.change))

    def touched(self) -> frozenset[Key]:
        """Return the keys of all objects in it."""
        return frozenset(t.key for t in (*self.add, *self.old()))


def noun(kind: type[Identified]) -> str:
    """Return the name of a kind in words: "port socket" for PortSocket."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


def worded(key: Key) -> str:
    """Return what a key stands for in words: "link address fl-4ec1b2c3d4e5 10.2.0.1/26"."""
    return " ".join((noun(key[0]), *map(str, key[1:])))


def diff(have: Iterable[HostObject], want: Iterable[HostObject]) -> Plan:
    """Return the plan from one set of objects to another; the keys in a set are unique."""
    # leave out first what both have, usually nearly all of thousands: keys take time
    here, there = frozenset(have), frozenset(want)
    old = {item.key: item for item in here - there}
    new = [(old.pop(item.key, None), item) for item in _ordered(there - here)]
    return Plan(
        add=tuple(item for was, item in new if was is None),
        change=tuple((was, item) for was, item in new if was is not None),
        remove=_ordered(old.values())[::-1],
    )


def _ordered(objects: Iterable[HostObject]) -> tuple[HostObject, ...]:
    return tuple(sorted(objects, key=_place))


def _place(item: HostObject) -> str:
    """Return what an object is sorted by: one text for all of it is the fastest."""
    kind, *identity = item.key
    return " ".join((f"{RANK[type(item)]:02}", kind.__name__, *map(str, identity)))
