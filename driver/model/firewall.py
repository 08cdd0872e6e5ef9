"""What the firewall should have, as data: constant rules, and entries that they act on.

The constant rules translate addresses and drop packets. They cannot accept what another program
drops: so the `ForwardGate` has rules in Docker's own FORWARD path. These accept only what the
constant rules have marked, so nothing passes while the constant rules are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar

from driver.model.identity import Identified
from driver.model.records import Proto


def nameable(link: str) -> bool:
    """Whether nft can write a link's name; the kernel allows others, too."""
    readable = link.isprintable() and "\ufffd" not in link
    return readable and '"' not in link and not link.endswith("*")


@dataclass(frozen=True, slots=True)
class Ruleset(Identified):
    """The constant rules. `intact`: they are as this version of the plugin writes them."""

    intact: bool = True
    identity: ClassVar[tuple[str, ...]] = ()
    isolates: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class ForwardGate(Identified):
    """Rules in Docker's FORWARD path, "nft" or "legacy"; `bridged`: see `Facts`."""

    variant: str
    bridged: bool = False
    identity: ClassVar[tuple[str, ...]] = ("variant",)
    isolates: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class FirewallEntry(Identified):
    """Something that the constant rules act on. `owner`: the network's or endpoint's id.

    All fields but the owner are its identity, unless its class says otherwise.
    """

    isolates: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        """Set the identity."""
        if "identity" not in vars(cls):
            cls.identity = tuple(name for name in cls.__annotations__ if name != "owner")


@dataclass(frozen=True, slots=True)
class PortMap(FirewallEntry):
    """Translates a host port to a container's; `host_ip` `ANY`: on every address of the host."""

    proto: Proto
    host_ip: IPv4Address
    host_port: int
    target: IPv4Address
    target_port: int
    owner: str = ""
    identity: ClassVar[tuple[str, ...]] = ("proto", "host_ip", "host_port")

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}/{self.proto}"


@dataclass(frozen=True, slots=True)
class BridgePair(FirewallEntry):
    """Lets packets pass from one bridge to another; a network has one from its bridge to itself."""

    source: str
    destination: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class SourcePrefix(FirewallEntry):
    """Lets containers of a bridge send from these addresses, and reach their own host ports."""

    prefix: IPv4Network
    bridge: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class SourceAddress(FirewallEntry):
    """Lets a container of a bridge send from the address it has on another network."""

    ip: IPv4Address
    bridge: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class AnySource(FirewallEntry):
    """Lets containers of a bridge send from any address."""

    bridge: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class InternalBridge(FirewallEntry):
    """Drops what comes from a bridge or goes to it, except what stays on it."""

    bridge: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Masquerade(FirewallEntry):
    """Masquerades what a network sends out of the overlay."""

    prefix: IPv4Network
    owner: str = ""


@dataclass(frozen=True, slots=True)
class DockerMasquerade(FirewallEntry):
    """Masquerades what a subnet of Docker's sends, also to other hosts.

    Another host may have the same subnet, so these addresses must not leave this one.
    """

    prefix: IPv4Network
    owner: str = ""


@dataclass(frozen=True, slots=True)
class OverlayPrefix(FirewallEntry):
    """The overlay's Network: packets to it are not masqueraded."""

    prefix: IPv4Network


@dataclass(frozen=True, slots=True)
class LeasePrefix(FirewallEntry):
    """Drops what comes from other hosts with a source in this host's subnet."""

    prefix: IPv4Network


@dataclass(frozen=True, slots=True)
class ClosedPrefix(FirewallEntry):
    """Drops what containers send to this prefix, unless it goes to a peer or a `NearPrefix`."""

    prefix: IPv4Network


@dataclass(frozen=True, slots=True)
class NearPrefix(FirewallEntry):
    """An exception in a `ClosedPrefix`: the host reaches this prefix without the overlay."""

    prefix: IPv4Network


@dataclass(frozen=True, slots=True)
class DirectLink(FirewallEntry):
    """Lets in direct peers: this link reaches them without encapsulation."""

    link: str


@dataclass(frozen=True, slots=True)
class PeerPrefix(FirewallEntry):
    """Lets in what containers of a direct peer send."""

    prefix: IPv4Network


@dataclass(frozen=True, slots=True)
class PeerAddress(FirewallEntry):
    """Lets in what the host of a direct peer sends itself."""

    ip: IPv4Address


@dataclass(frozen=True, slots=True)
class EtcdMember(FirewallEntry):
    """Drops what this host's containers send to a member of etcd."""

    ip: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class LocalEtcd(FirewallEntry):
    """Drops what any host's containers send to etcd on this host, at any address."""

    port: int


@dataclass(frozen=True, slots=True)
class Uplink(FirewallEntry):
    """Lets containers leave the host by a bridge that leads out of it."""

    bridge: str


@dataclass(frozen=True, slots=True)
class Carrier(FirewallEntry):
    """Takes frames of the overlay from a bridge that is not ours, as it carries the overlay."""

    bridge: str


@dataclass(frozen=True, slots=True)
class TunnelPort(FirewallEntry):
    """Drops what containers send to a UDP port that takes frames of an overlay."""

    port: int


@dataclass(frozen=True, slots=True)
class ForeignBridge(FirewallEntry):
    """Drops what our containers send to a bridge that is not ours."""

    bridge: str


@dataclass(frozen=True, slots=True)
class UnknownEntry(FirewallEntry):
    """An entry that the plugin never writes, in the backend's words; it is always removed."""

    place: str
    text: str


ENTRIES: tuple[type[FirewallEntry], ...] = (
    PortMap, BridgePair, SourcePrefix, SourceAddress, AnySource, InternalBridge, Masquerade,
    DockerMasquerade, OverlayPrefix, LeasePrefix, ClosedPrefix, NearPrefix, DirectLink, PeerPrefix,
    PeerAddress, EtcdMember, LocalEtcd, Uplink, Carrier, TunnelPort, ForeignBridge, UnknownEntry,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flows:
    """Tracked flows to a host port at the address `ip`, answered by `target`; None: by or at any.

    Only flows whose status has none of the bits `without`.
    Source: linux/netfilter/nf_conntrack_common.h.
    """

    proto: Proto
    port: int
    ip: IPv4Address | None
    target: IPv4Address | None = None
    without: int = 0
