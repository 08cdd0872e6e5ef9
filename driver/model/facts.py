"""What the plugin knows about the host beyond its own objects. Immutable, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from driver.model.prefixes import overlap, parts
from driver.model.records import FLANNEL_PREFIX, Lease, Overlay

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
    """The signs of a flanneld on this host.

    Two programs with one lease would each write their own MAC into etcd and the device, which
    breaks the host's overlay. So the plugin leaves etcd, the device and the lease file to a
    flanneld. An unknown MAC in etcd is no sign of one: it may be from before a reinstallation. A
    flanneld makes its device before it writes its lease; while it waits for etcd, its process
    shows it.

    `devices`: vxlan devices that are not this plugin's: name, VNI, port. `own`: name and MAC of its
    own.
    `process`: the id of a process called flanneld in this network namespace, 0 if there is none.
    """

    devices: frozenset[tuple[str, int, int]] = frozenset()
    own: frozenset[tuple[str, str]] = frozenset()
    process: int = 0

    def sign(self, overlay: Overlay | None) -> str:
        """Return what shows that a flanneld has this host's flannel network; "" if nothing does.

        While no config is known, every device with a name of flanneld's counts. A process that
        belongs to the device of another flannel network does not.
        """
        if device := self._device(overlay):
            return f"the device {device}"
        if self.process and not any(n.startswith(FLANNEL_PREFIX) for n, _, _ in self.devices):
            return f"the process {self.process}"
        return ""

    def joined(self, overlay: Overlay) -> bool:
        """Whether a flanneld was started after the plugin had the network.

        It then uses the plugin's device, MAC and lease as they are. host-gw has no device.
        """
        mine = overlay.backend == "host-gw" or overlay.device in dict(self.own)
        return mine and not self._device(overlay)

    def own_mac(self, overlay: Overlay | None) -> str:
        """Return the MAC of the plugin's device of an overlay, "" without one."""
        return dict(self.own).get(overlay.device, "") if overlay else ""

    def has(self, overlay: Overlay) -> bool:
        """Whether a flanneld has the network, so that the plugin makes none of its objects."""
        return bool(self.sign(overlay)) and not self.joined(overlay)

    def _device(self, overlay: Overlay | None) -> str:
        for name, vni, port in sorted(self.devices):
            if overlay is None:
                if name == f"{FLANNEL_PREFIX}{vni}":
                    return name
            elif name == overlay.device:
                return name
            elif overlay.backend == "vxlan" and (vni, port) == (overlay.vni, overlay.port):
                return f"{name} of VNI {vni}"
        return ""


@dataclass(frozen=True, slots=True)
class LocalAddresses:
    """The addresses that the host itself uses: no other host's lease may cover them.

    `onlink`: prefixes that it reaches without a gateway or owns, except ours; `lans`: those of them
    that lead out of the host. `places`: single addresses, each with what it is.
    """

    onlink: tuple[IPv4Network, ...] = ()
    lans: tuple[IPv4Network, ...] = ()
    places: tuple[tuple[IPv4Address, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plugin needs to know about the host beyond its own objects.

    `uplinks`: other programs' bridges that lead out of the host; `foreign`: those that do not, with
    somebody's containers. `onlink`, `lans`, `places`: see `LocalAddresses`; `holders`: the links of
    `onlink`. `routed`: prefixes of other programs' routes, except the default; `resolvers`: name
    servers. `firewall`: its backend.
    `gates`: the iptables variants in use, "nft", "legacy".
    `forwarding`: the host forwards; `forwards`: the plugin turns that on while it has networks.
    `uplink_mtu`: of the default route's link, in bytes. `external`: None if there is none or no use
    for it. `tunnels`: UDP ports of flannel's devices; `carriers`: foreign bridges they send by.
    `bridged`: frames within a bridge pass iptables. `guards`: the kernel can guard 127.0.0.0/8.
    `etcd`: address and port of the members that containers must not reach.
    """

    uplinks: frozenset[str] = frozenset()
    onlink: tuple[IPv4Network, ...] = ()
    holders: tuple[tuple[IPv4Network, str], ...] = ()
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
    def local_addresses(self) -> LocalAddresses:
        """What the host itself uses."""
        return LocalAddresses(self.onlink, self.lans, self.places)

    def lan_fault(self, lease: Lease) -> str:
        """Return how a lease overlaps this host's own LANs, "" if it does not.

        A LAN that contains the whole Network does not count: the administrator wanted it so.
        """
        for lan in parts(lease.network, self.lans):
            if overlap(lan, lease.subnet):
                return (
                    f"the lease {lease.subnet} overlaps {lan}, a LAN of this host: choose a "
                    "Network without it, or SubnetMin and SubnetMax around it, and have this host "
                    "get another"
                )
        return ""


@dataclass(frozen=True, slots=True)
class Resident:
    """The container end of one of our veths: a running container's interface.

    `host_end`: the veth's name on the host. `sandbox`: the path of the container's namespace, as
    Docker passes it at Join. `gateways`: those of its default routes.
    """

    host_end: str
    sandbox: str
    interface: str
    mac: str
    addresses: tuple[IPv4Interface, ...]
    gateways: frozenset[IPv4Address]
