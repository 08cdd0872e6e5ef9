"""Where this host's lease comes from: a subnet of our own choice, or flanneld's file.

A source is asked with what is stored and says what the lease is now, and what is wrong. It never
guesses: what cannot be read leaves the stored lease as it was. Imports `model`, `errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Protocol

from driver.errors import Exhausted, FlannelError, Unavailable
from driver.facts import Facts
from driver.model import Lease, Overlay, Peer, State, Vtep

DEFAULT_MTU = 1500  # bytes, when no default route tells the uplink's
LOWEST_MTU = 576
HIGHEST_MTU = 65535
Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a source says: the lease, the overlay around it, and what is wrong, a sentence each.

    `phase` names how far the lease is, for people: "held", "acquiring", "lost", …
    """

    lease: Lease | None
    phase: str
    problems: tuple[str, ...] = ()
    overlay: Overlay | None = None
    vtep: Vtep | None = None
    peers: frozenset[Peer] = frozenset()


class Source(Protocol):
    """Where the lease comes from."""

    def begin(self, state: State, facts: Facts) -> None:
        """Get ready, in a moment, so that the first answer of `current` need not be the old one."""

    def current(self, state: State, facts: Facts) -> Standing:
        """Say how things stand now, given what is stored and what the host is like."""

    def stamp(self) -> object:
        """Give a value that changes when it is worth asking again at once."""


@dataclass(frozen=True, slots=True)
class Leases:
    """The settings that decide on the lease; `wanted` is "auto", "standalone" or "subnet-file"."""

    wanted: str
    network: IPv4Network
    subnet_len: int
    file: Path

    def begin(self, state: State, facts: Facts) -> None:
        """Do nothing: it takes no time to say what the lease is."""

    def current(self, state: State, facts: Facts) -> Standing:
        """Say what the lease is now, and what is wrong.

        While blocks are in use the source stays, and a standalone lease stays as it is.
        """
        lease, problem = self._lease(state.lease, facts, in_use=bool(state.pools))
        phase = "held" if lease else "waiting"
        return Standing(lease, phase, (problem,) if problem else (), vtep=state.vtep)

    def _lease(
        self, stored: Lease | None, facts: Facts, *, in_use: bool
    ) -> tuple[Lease | None, str]:
        source = self._source()
        if stored is not None and in_use and stored.source != source:
            if self.wanted != "auto" or stored.source == "etcd":
                return stored, kept(stored, source)
            source = stored.source
        try:
            if source == "subnet-file":
                return read_subnet_file(self.file), ""
            return self._standalone(stored, facts, in_use=in_use)
        except FlannelError as error:
            return (stored if stored and stored.source == source else None), str(error)

    def stamp(self) -> Stamp:
        """Give a value that changes when the file is replaced, written or removed."""
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _source(self) -> str:
        if self.wanted != "auto":
            return self.wanted
        return "subnet-file" if self.file.exists() else "standalone"

    def _standalone(self, stored: Lease | None, facts: Facts, *, in_use: bool) -> tuple[Lease, str]:
        if stored is not None and stored.source == "standalone":
            as_set = (stored.network, stored.subnet.prefixlen) == (self.network, self.subnet_len)
            if as_set or in_use:
                return stored, "" if as_set else (
                    f"a lease of /{self.subnet_len} from {self.network} is set, but networks use "
                    f"{stored.subnet}: it is kept until they are removed"
                )
        mtu = facts.uplink_mtu or DEFAULT_MTU
        for subnet in self.network.subnets(new_prefix=self.subnet_len):
            if not any(subnet.overlaps(other) for other in facts.onlink):
                return Lease(self.network, subnet, mtu, "standalone"), ""
        raise Exhausted(
            f"every /{self.subnet_len} of {self.network} overlaps addresses or routes of this host;"
            " set another DOCKER_FLANNEL_NETWORK"
        )


def kept(stored: Lease, source: str) -> str:
    """Say why a lease stays that is not from where it shall come."""
    return (
        f"the lease shall come from {source}, but networks use {stored.subnet} from "
        f"{stored.source}: it is kept until they are removed"
    )


def read_subnet_file(path: Path) -> Lease:
    """Read the file flanneld writes.

    Shape:  lines NAME=VALUE; FLANNEL_NETWORK, FLANNEL_SUBNET (network address + 1) and
            FLANNEL_MTU are needed, other names are ignored.
    Errors: Unavailable naming the file and the line.
    Source: flannel, pkg/subnet WriteSubnetFile.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise Unavailable(f"lease file {path} is not there; start flanneld") from None
    except (OSError, UnicodeDecodeError) as error:
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
    return lease


def _values(path: Path, lines: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.strip().partition("=")
        if not equals and name and not name.startswith("#"):
            raise Unavailable(f"lease file {path} line {number} is not NAME=VALUE: {line[:80]!r}")
        values[name] = value
    return values
