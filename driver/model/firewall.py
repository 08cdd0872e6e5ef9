"""What the firewall should have, as data: constant rules, and an entry for each thing they act on.

The constant rules translate addresses and drop. They cannot accept against somebody else's drop:
for that there is the `ForwardGate`, rules in Docker's own FORWARD path. Those accept only what the
constant rules have marked, so nothing passes while these are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar

from driver.model.identity import Identified
from driver.model.records import Proto


@dataclass(frozen=True, slots=True)
class Ruleset(Identified):
    """The constant rules. `intact`: they are there as this version of the plugin writes them."""

    intact: bool = True
    identity: ClassVar[tuple[str, ...]] = ()
    isolates: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class ForwardGate(Identified):
    """Rules in Docker's FORWARD path, "nft" or "legacy"; `bridged`: bridges' frames come by."""

    variant: str
    bridged: bool = False
    identity: ClassVar[tuple[str, ...]] = ("variant",)
    isolates: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class FirewallEntry(Identified):
    """Something that the constant rules act on. `owner`: the network's or endpoint's id."""

    isolates: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class PortMap(FirewallEntry):
    """Leads a host port to a container; `host_ip` `ANY`: on every address of the host."""

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
    """Lets packets pass from one bridge to another: from a network's to itself."""

    source: str
    destination: str
    owner: str = ""
    identity: ClassVar[tuple[str, ...]] = ("source", "destination")


@dataclass(frozen=True, slots=True)
class SourcePrefix(FirewallEntry):
    """Lets containers of a bridge send from these addresses, and reach their own host ports."""

    prefix: IPv4Network
    bridge: str
    owner: str = ""
    identity: ClassVar[tuple[str, ...]] = ("prefix", "bridge")


@dataclass(frozen=True, slots=True)
class SourceAddress(FirewallEntry):
    """Lets a container of a bridge send from the address it has on another network."""

    ip: IPv4Address
    bridge: str
    owner: str = ""
    identity: ClassVar[tuple[str, ...]] = ("ip", "bridge")


@dataclass(frozen=True, slots=True)
class AnySource(FirewallEntry):
    """Lets containers of a bridge send from any address."""

    bridge: str
    owner: str = ""
    identity: ClassVar[tuple[str, ...]] = ("bridge",)


@dataclass(frozen=True, slots=True)
class InternalBridge(FirewallEntry):
    """Drops what comes from a bridge or goes to it, but what stays on it."""

    bridge: str
    owner: str = ""
    identity: ClassVar[tuple[str, ...]] = ("bridge",)


@dataclass(frozen=True, slots=True)
class Masquerade(FirewallEntry):
    """Masquerades what a network sends out of the overlay."""

    prefix: IPv4Network
    owner: str = ""
    identity: ClassVar[tuple[str, ...]] = ("prefix",)


@dataclass(frozen=True, slots=True)
class DockerMasquerade(FirewallEntry):
    """Masquerades what a subnet of Docker's sends, also to other hosts.

    Another host may have the same subnet: its addresses never leave this one.
    """

    prefix: IPv4Network
    owner: str = ""
    identity: ClassVar[tuple[str, ...]] = ("prefix",)


@dataclass(frozen=True, slots=True)
class OverlayPrefix(FirewallEntry):
    """The overlay's Network: packets of networks are not masqueraded there."""

    prefix: IPv4Network
    identity: ClassVar[tuple[str, ...]] = ("prefix",)


@dataclass(frozen=True, slots=True)
class LeasePrefix(FirewallEntry):
    """This host's subnet: drops what comes from other hosts and claims to be from there."""

    prefix: IPv4Network
    identity: ClassVar[tuple[str, ...]] = ("prefix",)


@dataclass(frozen=True, slots=True)
class ClosedPrefix(FirewallEntry):
    """Drops what containers send here, unless it goes to a peer or a `NearPrefix`."""

    prefix: IPv4Network
    identity: ClassVar[tuple[str, ...]] = ("prefix",)


@dataclass(frozen=True, slots=True)
class NearPrefix(FirewallEntry):
    """Lets containers send here, in a `ClosedPrefix`: the host reaches it without the overlay."""

    prefix: IPv4Network
    identity: ClassVar[tuple[str, ...]] = ("prefix",)


@dataclass(frozen=True, slots=True)
class DirectLink(FirewallEntry):
    """Lets direct peers in: by this link they are reached without encapsulation."""

    link: str
    identity: ClassVar[tuple[str, ...]] = ("link",)


@dataclass(frozen=True, slots=True)
class PeerPrefix(FirewallEntry):
    """Lets in what containers of a direct peer send."""

    prefix: IPv4Network
    identity: ClassVar[tuple[str, ...]] = ("prefix",)


@dataclass(frozen=True, slots=True)
class PeerAddress(FirewallEntry):
    """Lets in what the host of a direct peer sends itself."""

    ip: IPv4Address
    identity: ClassVar[tuple[str, ...]] = ("ip",)


@dataclass(frozen=True, slots=True)
class EtcdMember(FirewallEntry):
    """Drops what this host's containers send to a member of etcd."""

    ip: IPv4Address
    port: int
    identity: ClassVar[tuple[str, ...]] = ("ip", "port")


@dataclass(frozen=True, slots=True)
class LocalEtcd(FirewallEntry):
    """Drops what any host's containers send to etcd on this host, by whichever address."""

    port: int
    identity: ClassVar[tuple[str, ...]] = ("port",)


@dataclass(frozen=True, slots=True)
class Uplink(FirewallEntry):
    """Lets containers leave by a bridge of the host's that leads out of it."""

    bridge: str
    identity: ClassVar[tuple[str, ...]] = ("bridge",)


@dataclass(frozen=True, slots=True)
class Carrier(FirewallEntry):
    """Takes frames of the overlay from another's bridge, which carries it."""

    bridge: str
    identity: ClassVar[tuple[str, ...]] = ("bridge",)


@dataclass(frozen=True, slots=True)
class TunnelPort(FirewallEntry):
    """Drops what containers send to a UDP port where frames of an overlay are taken."""

    port: int
    identity: ClassVar[tuple[str, ...]] = ("port",)


@dataclass(frozen=True, slots=True)
class ForeignBridge(FirewallEntry):
    """Drops what our containers send to others', on a bridge that is not ours."""

    bridge: str
    identity: ClassVar[tuple[str, ...]] = ("bridge",)


@dataclass(frozen=True, slots=True)
class UnknownEntry(FirewallEntry):
    """Something among ours that the plugin never writes, in the backend's words: it has to go."""

    place: str
    text: str
    identity: ClassVar[tuple[str, ...]] = ("place", "text")


ENTRIES: tuple[type[FirewallEntry], ...] = (
    PortMap, BridgePair, SourcePrefix, SourceAddress, AnySource, InternalBridge, Masquerade,
    DockerMasquerade, OverlayPrefix, LeasePrefix, ClosedPrefix, NearPrefix, DirectLink, PeerPrefix,
    PeerAddress, EtcdMember, LocalEtcd, Uplink, Carrier, TunnelPort, ForeignBridge, UnknownEntry,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flows:
    """Tracked flows to a host port: to its address `ip`, None for any, answered by `target`.

    `target` None: by anybody. Of those the ones whose status has none of the bits in `without`.
    Source: linux/netfilter/nf_conntrack_common.h.
    """

    proto: Proto
    port: int
    ip: IPv4Address | None
    target: IPv4Address | None = None
    without: int = 0
