"""The settings: one table of names, defaults and meanings. The only reader of the environment.

Imports `errors` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from driver.errors import BadRequest

LEASE_SOURCES = ("auto", "standalone", "subnet-file")
LONGEST_SUBNET = 29
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its `serve` option, environment variable, default and meaning."""

    option: str
    variable: str
    default: str
    help: str


SETTINGS = (
    Setting(
        "--lease",
        "DOCKER_FLANNEL_LEASE",
        "auto",
        f"where the lease comes from: {', '.join(LEASE_SOURCES)}; auto is subnet-file when the "
        "file is there, else standalone",
    ),
    Setting(
        "--network",
        "DOCKER_FLANNEL_NETWORK",
        "10.2.0.0/16",
        "standalone: the prefix to take a lease from",
    ),
    Setting(
        "--subnet-len",
        "DOCKER_FLANNEL_SUBNET_LEN",
        "20",
        "standalone: prefix length of the lease",
    ),
    Setting(
        "--subnet-file",
        "FLANNELD_SUBNET_FILE",
        "/run/flannel/subnet.env",
        "the file flanneld writes",
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
        "/run/docker/plugins/flannel.sock",
        "where Docker finds the plugin",
    ),
    Setting(
        "--log-level",
        "DOCKER_FLANNEL_LOG_LEVEL",
        "info",
        f"one of {', '.join(LOG_LEVELS)}",
    ),
)


@dataclass(frozen=True, slots=True)
class Config:
    """The settings, checked."""

    lease: str
    network: IPv4Network
    subnet_len: int
    subnet_file: Path
    state_dir: Path
    socket: Path
    log_level: str

    @classmethod
    def read(cls, options: Mapping[str, str | None], environment: Mapping[str, str]) -> Config:
        """Take each setting from its option, else its variable, else its default.

        Shape: `options` by option name. An empty variable counts as not set.
        Errors: BadRequest naming the setting, the value and what is allowed.
        """
        text = {
            s.option: options.get(s.option) or environment.get(s.variable) or s.default
            for s in SETTINGS
        }
        network = _network(text["--network"])
        return cls(
            lease=_one_of("--lease", text["--lease"], LEASE_SOURCES),
            network=network,
            subnet_len=_subnet_len(text["--subnet-len"], network),
            subnet_file=Path(text["--subnet-file"]),
            state_dir=Path(text["--state-dir"]),
            socket=Path(text["--socket"]),
            log_level=_one_of("--log-level", text["--log-level"], LOG_LEVELS),
        )


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise BadRequest(f"{option} {value!r} is none of {', '.join(allowed)}")
    return value


def _network(value: str) -> IPv4Network:
    try:
        return IPv4Network(value)
    except ValueError as error:
        raise BadRequest(
            f"--network {value!r} is no IPv4 prefix like 10.2.0.0/16: {error}"
        ) from None


def _subnet_len(value: str, network: IPv4Network) -> int:
    if value not in map(str, range(network.prefixlen, LONGEST_SUBNET + 1)):
        raise BadRequest(
            f"--subnet-len {value!r} is no number from {network.prefixlen} (of {network}) to "
            f"{LONGEST_SUBNET}"
        )
    return int(value)
