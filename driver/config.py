"""The settings: a table of names, defaults and meanings, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from driver.errors import BadRequest
from driver.flannel.etcd.settings import DEFAULT_PREFIX, EtcdSettings
from driver.model.prefixes import fault_of_network

LEASE_SOURCES = ("auto", "etcd", "subnet-file", "standalone")
FIREWALLS = ("auto", "nft", "iptables")
LONGEST_SUBNET = 29
DEFAULT_SOCKET = Path("/run/docker/plugins/flannel.sock")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its `serve` option, environment variable, default and meaning.

    A secret has no option, since every user can see a process's command line.
    """

    option: str
    variable: str
    default: str
    help: str
    secret: bool = False


SETTINGS = (
    Setting(
        "--lease",
        "DOCKER_FLANNEL_LEASE",
        "auto",
        f"where the lease comes from: {', '.join(LEASE_SOURCES)}; auto is etcd when it has "
        "endpoints and no flanneld runs, else subnet-file when the file is there, else standalone",
    ),
    Setting(
        "--etcd-endpoints",
        "FLANNELD_ETCD_ENDPOINTS",
        "",
        "etcd's members, like https://192.0.2.1:2379,https://192.0.2.2:2379",
    ),
    Setting("--etcd-prefix", "FLANNELD_ETCD_PREFIX", DEFAULT_PREFIX, "where flannel's keys are"),
    Setting("--etcd-cafile", "FLANNELD_ETCD_CAFILE", "", "certificate of etcd's authority"),
    Setting("--etcd-certfile", "FLANNELD_ETCD_CERTFILE", "", "this host's certificate for etcd"),
    Setting("--etcd-keyfile", "FLANNELD_ETCD_KEYFILE", "", "the key to that certificate"),
    Setting("--etcd-username", "FLANNELD_ETCD_USERNAME", "", "user of etcd"),
    Setting("--etcd-password", "FLANNELD_ETCD_PASSWORD", "", "password of that user", secret=True),
    Setting(
        "--etcd-from-containers",
        "DOCKER_FLANNEL_ETCD_FROM_CONTAINERS",
        "0",
        "1 lets this host's containers reach those endpoints of etcd",
    ),
    Setting(
        "--iface",
        "FLANNELD_IFACE",
        "",
        "interface to the other hosts, by name or address; else that of the default route",
    ),
    Setting("--public-ip", "FLANNELD_PUBLIC_IP", "", "address the other hosts send to, if another"),
    Setting(
        "--network",
        "DOCKER_FLANNEL_NETWORK",
        "10.2.0.0/16",
        "standalone: the prefix to take a lease from",
    ),
    Setting(
        "--subnet-len", "DOCKER_FLANNEL_SUBNET_LEN", "20", "standalone: prefix length of the lease"
    ),
    Setting(
        "--subnet-file",
        "FLANNELD_SUBNET_FILE",
        "/run/flannel/subnet.env",
        "the file flanneld writes",
    ),
    Setting(
        "--firewall",
        "DOCKER_FLANNEL_FIREWALL",
        "auto",
        f"what carries ports and isolation: {', '.join(FIREWALLS)}; auto is nft where the kernel "
        "has nf_tables, else iptables",
    ),
    Setting(
        "--state-dir",
        "DOCKER_FLANNEL_STATE_DIR",
        "/var/lib/docker-flannel",
        "folder of the state file",
    ),
    Setting(
        "--socket",
        "DOCKER_FLANNEL_SOCKET",
        str(DEFAULT_SOCKET),
        "where Docker finds the plugin; several with commas between them",
    ),
    Setting(
        "--require-ipam",
        "DOCKER_FLANNEL_REQUIRE_IPAM",
        "0",
        "1 refuses networks whose subnet Docker chose outside the lease",
    ),
    Setting(
        "--ip-forward",
        "DOCKER_FLANNEL_IP_FORWARD",
        "1",
        "1 keeps net.ipv4.ip_forward on while there are networks; 0 leaves it to you",
    ),
    Setting("--log-level", "DOCKER_FLANNEL_LOG_LEVEL", "info", f"one of {', '.join(LOG_LEVELS)}"),
)


@dataclass(frozen=True, slots=True)
class Basics:
    """The settings that the service needs to start and to report that another one is bad.

    Here, a bad value is replaced by the default; `Config.read` refuses it.
    """

    sockets: tuple[Path, ...]
    state_dir: Path
    subnet_file: Path
    log_level: str

    @classmethod
    def read(cls, options: Mapping[str, str | None], environment: Mapping[str, str]) -> Basics:
        """Read these settings, from the same arguments as `Config.read`."""
        text = _text(options, environment)
        try:
            sockets = _sockets(text["--socket"])
        except BadRequest:
            sockets = (DEFAULT_SOCKET,)
        level = text["--log-level"]
        return cls(
            sockets,
            Path(text["--state-dir"]),
            Path(text["--subnet-file"]),
            level if level in LOG_LEVELS else "info",
        )


@dataclass(frozen=True, slots=True)
class Config:
    """The settings, checked."""

    lease: str
    network: IPv4Network
    subnet_len: int
    subnet_file: Path
    etcd: EtcdSettings | None
    etcd_from_containers: bool
    iface: str
    public_ip: IPv4Address | None
    firewall: str
    state_dir: Path
    sockets: tuple[Path, ...]
    require_ipam: bool
    ip_forward: bool
    log_level: str

    @property
    def follows_etcd(self) -> bool:
        """Whether the lease comes from etcd, unless a flanneld on this host has it."""
        return self.lease == "etcd" or (self.lease == "auto" and self.etcd is not None)

    @classmethod
    def read(cls, options: Mapping[str, str | None], environment: Mapping[str, str]) -> Config:
        """Read each setting from its option, else its variable, else its default.

        Shape: `options` by option name; unknown ones are ignored. Empty variables count as not set.
        Errors: BadRequest naming the setting, the value and what is allowed.
        """
        text = _text(options, environment)
        network = _network(text["--network"])
        etcd = _etcd(text)
        lease = _one_of("--lease", text["--lease"], LEASE_SOURCES)
        if lease == "etcd" and etcd is None:
            raise BadRequest("--lease etcd needs --etcd-endpoints")
        return cls(
            lease=lease,
            network=network,
            subnet_len=_subnet_len(text["--subnet-len"], network),
            subnet_file=Path(text["--subnet-file"]),
            etcd=etcd,
            etcd_from_containers=_flag("--etcd-from-containers", text),
            iface=text["--iface"],
            public_ip=public_ip(text["--public-ip"]),
            firewall=_one_of("--firewall", text["--firewall"], FIREWALLS),
            state_dir=Path(text["--state-dir"]),
            sockets=_sockets(text["--socket"]),
            require_ipam=_flag("--require-ipam", text),
            ip_forward=_flag("--ip-forward", text),
            log_level=_one_of("--log-level", text["--log-level"], LOG_LEVELS),
        )


def _text(options: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, str]:
    return {
        s.option: options.get(s.option) or environment.get(s.variable) or s.default
        for s in SETTINGS
    }


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise BadRequest(f"{option} {value!r} is none of {', '.join(allowed)}")
    return value


def _flag(option: str, text: Mapping[str, str]) -> bool:
    return _one_of(option, text[option], ("0", "1")) == "1"


def _etcd(text: Mapping[str, str]) -> EtcdSettings | None:
    names = ("cafile", "certfile", "keyfile", "username", "password")
    rest = {name: text[f"--etcd-{name}"] for name in names}
    endpoints = text["--etcd-endpoints"]
    return EtcdSettings.read(endpoints, text["--etcd-prefix"], **rest) if endpoints else None


def public_ip(value: str) -> IPv4Address | None:
    """Return the public IP of the setting, None if it is not set. Errors: BadRequest."""
    try:
        return IPv4Address(value) if value else None
    except ValueError:
        raise BadRequest(f"--public-ip {value!r} is no IPv4 address") from None


def _sockets(value: str) -> tuple[Path, ...]:
    paths = tuple(map(Path, value.split(",")))
    if not all(path.is_absolute() for path in paths):
        raise BadRequest(
            f"--socket {value!r} is no absolute path, or several, separated by commas; meanwhile "
            f"{DEFAULT_SOCKET} is served"
        )
    return paths


def _network(value: str) -> IPv4Network:
    try:
        network = IPv4Network(value)
    except ValueError as error:
        raise BadRequest(
            f"--network {value!r} is no IPv4 prefix like 10.2.0.0/16: {error}"
        ) from None
    if fault := fault_of_network(network):
        raise BadRequest(f"--network {value!r} is no network for containers: it {fault}")
    return network


def _subnet_len(value: str, network: IPv4Network) -> int:
    if value not in map(str, range(network.prefixlen, LONGEST_SUBNET + 1)):
        raise BadRequest(
            f"--subnet-len {value!r} is no number from {network.prefixlen} (of {network}) to "
            f"{LONGEST_SUBNET}"
        )
    return int(value)
