"""The records that are stored. Immutable, no I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import ClassVar, Literal, get_args

Proto = Literal["tcp", "udp", "sctp"]
PROTO_NUMBERS: dict[Proto, int] = {"tcp": 6, "udp": 17, "sctp": 132}
PROTOCOLS = {number: proto for proto, number in PROTO_NUMBERS.items()}
Publisher = Literal["flannel", "docker"]
Owner = Literal["ipam", "network", "docker", "adopted"]

FLANNEL_PREFIX, BRIDGE_PREFIX = "flannel.", "fl-"  # the first is of flannel's devices
HOST_END_PREFIX, CONTAINER_END_PREFIX = "flh", "flc"
ALIAS_PREFIX = "docker-flannel "
ANY = IPv4Address(0)
LOWEST_MTU, HIGHEST_MTU = 576, 65535  # bytes, of what containers may get


def short(object_id: str) -> str:
    """Cut a Docker id to 12 characters: with a prefix of three it fits into a link's 15."""
    return object_id[:12]


@dataclass(frozen=True, slots=True)
class Lease:
    """This host's share (`subnet`) of the overlay (`network`).

    `mtu`: bytes, for containers. `source`: "etcd", "subnet-file" or "standalone".
    `held` is False while another host has, or may have, the subnet: no address is given out then.
    """

    network: IPv4Network
    subnet: IPv4Network
    mtu: int
    source: str
    held: bool = True
    kind: ClassVar[str] = "lease"
    id: ClassVar[str] = "own"


@dataclass(frozen=True, slots=True)
class Overlay:
    """The flannel network as its config in etcd describes it, every default filled in.

    `backend` is "vxlan" or "host-gw"; `vni`, `port`, `gbp`, `learning` and `direct_routing` are
    vxlan's. `mtu`: of the underlay, in bytes, None for the external interface's.
    """

    network: IPv4Network
    subnet_len: int
    subnet_min: IPv4Address
    subnet_max: IPv4Address
    backend: str
    vni: int = 1
    port: int = 8472
    gbp: bool = False
    learning: bool = False
    direct_routing: bool = False
    mtu: int | None = None
    kind: ClassVar[str] = "overlay"
    id: ClassVar[str] = "own"

    @property
    def device(self) -> str:
        """The name of the VTEP's device, as flannel names it."""
        return f"{FLANNEL_PREFIX}{self.vni}"


@dataclass(frozen=True, slots=True)
class Vtep:
    """This host's end of the overlay: the address and MAC that peers send to; the MAC stays."""

    public_ip: IPv4Address
    mac: str
    kind: ClassVar[str] = "vtep"
    id: ClassVar[str] = "own"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another host's lease. `mac` is its VTEP's, None for a backend without one."""

    subnet: IPv4Network
    public_ip: IPv4Address
    backend: str
    mac: str | None = None
    kind: ClassVar[str] = "peer"

    def __hash__(self) -> int:
        """Hash only what differs between most peers: thousands are compared at a time."""
        return hash((self.mac, int(self.public_ip)))

    @property
    def id(self) -> str:
        """The subnet."""
        return str(self.subnet)


@dataclass(frozen=True, slots=True)
class Pool:
    """A block of the lease.

    `sub` limits automatic addresses (`--ip-range`); `cursor` is the last of them: the search for an
    unused one goes on behind it. `since`: Unix time, seconds. `automatic`: Docker requested any
    block. `owner`: who assigns the addresses: our IPAM, the network driver, or Docker's IPAM;
    "adopted": the block was found on the host, and Docker's next call reveals the owner.
    """

    id: str
    cidr: IPv4Network
    sub: IPv4Network | None
    cursor: IPv4Address | None
    since: float
    automatic: bool = False
    owner: Owner = "ipam"
    kind: ClassVar[str] = "pool"

    def owned(self, owner: Owner, name: str) -> Pool:
        """Return it with another owner than our IPAM, and the matching id."""
        return replace(self, id=pool_id(owner, name), owner=owner)


def pool_id(owner: Owner, name: str) -> str:
    """Return the id of the pool of a network or of an adopted block, whose id is `name`."""
    return f"{owner}/{name}"


@dataclass(frozen=True, slots=True)
class Freed:
    """A released block. `at`: Unix time, seconds; the oldest is used again first."""

    cidr: IPv4Network
    at: float
    kind: ClassVar[str] = "freed"

    @property
    def id(self) -> str:
        """The block itself."""
        return str(self.cidr)


@dataclass(frozen=True, slots=True)
class Hold:
    """One taken address of a pool. `since`: Unix time, seconds.

    `released`: it goes with its endpoint; Docker has released it already, or never had it.
    """

    pool: str
    ip: IPv4Address
    why: Literal["gateway", "endpoint", "aux"]
    since: float
    released: bool = False
    kind: ClassVar[str] = "hold"

    @property
    def id(self) -> str:
        """The id, see `hold_id`."""
        return hold_id(self.pool, self.ip)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who took an address of a pool last; it stays when the address is released.

    `since`, `freed`: when it was taken and released; Unix time, seconds. `owner`: see
    `addresses.Wish`. `named`: it was requested with `--ip`.
    """

    pool: str
    ip: IPv4Address
    since: float
    owner: str = ""
    named: bool = False
    freed: float = 0.0
    kind: ClassVar[str] = "claim"

    @property
    def id(self) -> str:
        """The same as the hold's."""
        return hold_id(self.pool, self.ip)


def hold_id(pool: str, ip: IPv4Address) -> str:
    """Return the id of the hold of an address in a pool."""
    return f"{pool} {ip}"


@dataclass(frozen=True, slots=True)
class Network:
    """A Docker network on this host. `gateway` carries the block's prefix length.

    `docker_gateway`: of a subnet outside the lease, which Docker's own IPAM chose.
    `publish`: who publishes ports and has the default route, this driver or Docker's own bridge.
    `any_source`: its containers may send from any address, as routers do.
    """

    id: str
    pool: str
    gateway: IPv4Interface
    mtu: int
    internal: bool
    masquerade: bool
    interface_prefix: str
    docker_gateway: IPv4Interface | None = None
    publish: Publisher = "flannel"
    any_source: bool = False
    kind: ClassVar[str] = "network"

    @property
    def bridge(self) -> str:
        """The bridge's name."""
        return BRIDGE_PREFIX + short(self.id)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A host port translated to a container port. `host_ip` 0.0.0.0 means every address."""

    proto: Proto
    host_ip: IPv4Address
    host_port: int
    port: int

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}->{self.port}/{self.proto}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's interface on a network. `ports`: published while it has the default route.

    `sandbox`: the path passed at Join. `since`: Unix time, seconds. `docker_ip`: of Docker's IPAM,
    beside the lease's address `ip`.
    """

    id: str
    network: str
    ip: IPv4Interface
    mac: str
    since: float
    sandbox: str | None = None
    ports: tuple[PortMapping, ...] = ()
    docker_ip: IPv4Interface | None = None
    kind: ClassVar[str] = "endpoint"

    def __post_init__(self) -> None:
        """Sort the ports by host port, so that a range of them is found fast."""
        object.__setattr__(self, "ports", tuple(sorted(self.ports, key=lambda p: p.host_port)))

    @property
    def shown_ip(self) -> IPv4Interface:
        """The address that Docker shows."""
        return self.docker_ip or self.ip

    @property
    def host_end(self) -> str:
        """The name of the veth's host end."""
        return HOST_END_PREFIX + short(self.id)

    @property
    def container_end(self) -> str:
        """The name of the veth's other end, until Docker renames it."""
        return CONTAINER_END_PREFIX + short(self.id)


Record = Lease | Overlay | Vtep | Peer | Pool | Freed | Hold | Claim | Network | Endpoint
RECORD_TYPES: tuple[type[Record], ...] = get_args(Record)


@dataclass(frozen=True, slots=True)
class State:
    """All that is stored, as one immutable snapshot."""

    lease: Lease | None = None
    overlay: Overlay | None = None
    vtep: Vtep | None = None
    peers: Mapping[str, Peer] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    freed: Mapping[str, Freed] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    def network_of(self, pool: str) -> Network | None:
        """Find the network that uses a pool."""
        return next((n for n in self.networks.values() if n.pool == pool), None)

    def endpoints_of(self, network: str) -> list[Endpoint]:
        """List the endpoints of a network."""
        return [e for e in self.endpoints.values() if e.network == network]


replace = dataclasses.replace
