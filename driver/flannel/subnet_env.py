"""Reads and writes `subnet.env` as flanneld does, and writes the file with dockerd's options.

Source: flannel, pkg/subnet WriteSubnetFile.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from driver.errors import FlannelError, StoreError, Unavailable
from driver.files import read_file
from driver.flannel.docker_options import options
from driver.model.records import HIGHEST_MTU, LOWEST_MTU, Lease

log = logging.getLogger(__name__)

MARK = "# written by docker-flannel"  # to shells, systemd, flanneld and CNI a comment


@dataclass(frozen=True, slots=True)
class SubnetFile:
    """What a lease file says. `marked`: this plugin wrote it, not a flanneld."""

    lease: Lease
    ipmasq: bool = False
    marked: bool = False


def read_subnet_file(path: Path) -> SubnetFile:
    """Return what a lease file says.

    Shape:  lines NAME=VALUE; FLANNEL_NETWORK, FLANNEL_SUBNET (network address + 1) and
            FLANNEL_MTU are required, others are ignored.
    Errors: Unavailable naming the file and the line.
    """
    try:
        lines = read_file(path).decode().splitlines()
    except FileNotFoundError:
        raise Unavailable(f"lease file {path} is not there; start flanneld") from None
    except OSError as error:
        raise Unavailable(f"lease file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Unavailable(f"lease file {path} cannot be read: {error}") from error
    values = _values(path, lines)
    try:
        lease = Lease(
            network=IPv4Network(values["FLANNEL_NETWORK"]),
            subnet=IPv4Interface(values["FLANNEL_SUBNET"]).network,
            mtu=int(values["FLANNEL_MTU"]),
            source="subnet-file",
        )
    except KeyError as error:
        raise Unavailable(f"lease file {path} has no line {error.args[0]}=") from None
    except ValueError as error:
        raise Unavailable(f"lease file {path} has a bad value: {error}") from None
    if not lease.subnet.subnet_of(lease.network):
        raise Unavailable(
            f"lease file {path}: FLANNEL_SUBNET {lease.subnet} is not inside FLANNEL_NETWORK "
            f"{lease.network}"
        )
    if not LOWEST_MTU <= lease.mtu <= HIGHEST_MTU:
        raise Unavailable(
            f"lease file {path}: FLANNEL_MTU {lease.mtu} is not from {LOWEST_MTU} to {HIGHEST_MTU}"
        )
    return SubnetFile(lease, values.get("FLANNEL_IPMASQ") == "true", MARK in lines)


def _values(path: Path, lines: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.strip().partition("=")
        if not equals and name and not name.startswith("#"):
            raise Unavailable(f"lease file {path} line {number} is not NAME=VALUE: {line[:80]!r}")
        values[name] = value
    return values


def flannelds_lease(path: Path) -> Lease:
    """Return the lease in a flanneld's file.

    Errors: Unavailable, as `read_subnet_file`, and if this plugin wrote the file.
    """
    found = read_subnet_file(path)
    if found.marked:
        raise Unavailable(f"lease file {path} was written by this plugin earlier; start flanneld")
    return found.lease


def is_ours(path: Path, stored: Lease | None, *, alone: bool) -> bool:
    """Whether this plugin wrote a lease file, not a flanneld.

    Earlier versions wrote no mark. Such a file is ours if it names the lease that is `stored` from
    etcd and no flanneld on this host can have taken that over (`alone`).
    """
    try:
        found = read_subnet_file(path)
    except FlannelError:
        return False
    if found.marked or not (alone and stored and stored.source == "etcd"):
        return found.marked
    return not found.ipmasq and found.lease.subnet == stored.subnet


def mark(path: Path, stored: Lease | None, *, alone: bool) -> None:
    """Mark an earlier version's file, while the lease that shows it to be ours is still stored."""
    if stored and stored.source == "etcd" and is_ours(path, stored, alone=alone):
        try:
            write_subnet_env(path, read_subnet_file(path).lease)
        except FlannelError as error:
            log.warning("%s", error)


def write_subnet_env(path: Path, lease: Lease) -> None:
    """Write `subnet.env` for a lease that this plugin holds. Errors: StoreError."""
    _replace(
        path,
        f"{MARK}\n"
        f"FLANNEL_NETWORK={lease.network}\n"
        f"FLANNEL_SUBNET={lease.subnet[1]}/{lease.subnet.prefixlen}\n"
        f"FLANNEL_MTU={lease.mtu}\n"
        "FLANNEL_IPMASQ=false\n",
    )


def write_docker_options(path: Path, lease: Lease) -> None:
    """Write the options for a dockerd with all containers on `docker0`. Errors: StoreError."""
    given = options(lease.subnet, lease.mtu, ipmasq=False)
    lines = [f'DOCKER_OPT_{name}="{option}"\n' for name, option in given.items()]
    _replace(path, "".join(lines) + f'DOCKER_OPTS=" {" ".join(given.values())}"\n')


def _replace(path: Path, text: str) -> None:
    """Replace a file atomically by one that everybody may read."""
    new = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as file:  # never into a FIFO or through a link
            file.write(text)
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
