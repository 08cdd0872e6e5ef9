"""What the plugin knows of the host beyond its own things. Immutable, no I/O.

Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

OWN, GATEWAY, ETCD = "this host's own address", "this host's gateway", "an endpoint of etcd"


@dataclass(frozen=True, slots=True)
class External:
    """The interface to the underlay. `mtu` in bytes; `onlink`: prefixes reached without gateway."""

    name: str
    ip: IPv4Address
    mtu: int
    onlink: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Flanneld:
    """What there is of a flanneld on this host.

    `devices`: vxlan devices that are not this plugin's: name, VNI, port. `own`: names of its own.
    `process`: the id of a process called flanneld in this network namespace; 0: none is seen.
    """

    devices: frozenset[tuple[str, int, int]] = frozenset()
    own: frozenset[str] = frozenset()
    process: int = 0


@dataclass(frozen=True, slots=True)
class Ground:
    """What the host itself uses of the addresses there are: no other host's lease may cover it.

    `onlink`: prefixes it reaches without a gateway or owns, but ours; `lans`: those of them that
    lead out of the host. `places`: single addresses, each with what it is.
    """

    onlink: tuple[IPv4Network, ...] = ()
    lans: tuple[IPv4Network, ...] = ()
    places: tuple[tuple[IPv4Address, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plugin needs to know of the host beyond its own things.

    `uplinks`: others' bridges that lead out of the host; `foreign`: those that do not, so that
    somebody's containers are there. `onlink`, `lans`, `places`: see `Ground`; `routed`:
    what others have a route to, but the default one; `resolvers`: name servers. `firewall`: its
    backend. `gates`: iptables variants in use, "nft", "legacy".
    `forwarding`: the host forwards; `forwards`: this plugin keeps it so while it has networks.
    `uplink_mtu`: of the default route's link, in bytes. `external`: to the underlay; None: there is
    none, or no use.
    `tunnels`: UDP ports of flannel's devices; `carriers`: others' bridges those devices send by.
    `bridged`: frames within a bridge pass iptables. `guards`: the kernel can guard 127.0.0.0/8.
    `flanneld`: signs of one. `etcd`: address and port of the members that containers are kept from.
    """

    uplinks: frozenset[str] = frozenset()
    onlink: tuple[IPv4Network, ...] = ()
    foreign: frozenset[str] = frozenset()
    firewall: str = "nft"
    gates: frozenset[str] = frozenset()
    forwarding: bool = True
    forwards: bool = True
    uplink_mtu: int | None = None
    external: External | None = None
    tunnels: frozenset[int] = frozenset()
    carriers: frozenset[str] = frozenset()
    bridged: bool = False
    flanneld: Flanneld = Flanneld()
    etcd: frozenset[tuple[IPv4Address, int]] = frozenset()
    guards: bool = True
    lans: tuple[IPv4Network, ...] = ()
    routed: tuple[IPv4Network, ...] = ()
    places: tuple[tuple[IPv4Address, str], ...] = ()
    resolvers: tuple[IPv4Address, ...] = ()

    @property
    def ground(self) -> Ground:
        """What the host itself uses."""
        return Ground(self.onlink, self.lans, self.places)


@dataclass(frozen=True, slots=True)
class Resident:
    """What is at the other end of a veth of ours: a running container's interface.

    `host_end`: the veth's name on the host. `sandbox`: the path of the container's namespace, as
    Docker gives it at Join. `gateways`: of the default routes in there.
    """

    host_end: str
    sandbox: str
    interface: str
    mac: str
    addresses: tuple[IPv4Interface, ...]
    gateways: frozenset[IPv4Address]
