"""The addresses of the servers that the host uses: etcd's members and name servers.

Names are resolved in a thread, since that may take long.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from driver.files import read_file

log = logging.getLogger(__name__)

# where the first names only systemd's own resolver, the second has the real ones
RESOLVERS = tuple(map(Path, ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")))
LOOK_UP_S = 60.0


class Servers:
    """Resolves the names. `names`: those of etcd's members, or their addresses.

    `closed`: names and ports of the members that containers must not reach.
    """

    def __init__(
        self,
        names: Iterable[str],
        resolvers: Iterable[Path] = RESOLVERS,
        closed: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Store the addresses; names are resolved by `run`."""
        self._resolvers, self._closed = tuple(resolvers), tuple(closed)
        self._known: dict[str, frozenset[IPv4Address]] = {}
        self.names = frozenset(name for name in names if not self._is_address(name))

    def _is_address(self, name: str) -> bool:
        with suppress(ValueError):
            self._known[name] = frozenset({IPv4Address(name)})
        return name in self._known or ":" in name  # an IPv6 address is in no IPv4 network

    def etcd(self) -> frozenset[IPv4Address]:
        """Return the known addresses of etcd's members."""
        return frozenset().union(*list(self._known.values()))

    def closed(self) -> frozenset[tuple[IPv4Address, int]]:
        """Return the known addresses, with ports, of the members that are closed."""
        return frozenset(
            (ip, port) for name, port in self._closed for ip in self._known.get(name, ())
        )

    def resolvers(self) -> tuple[IPv4Address, ...]:
        """Return the name servers in the host's files, except those on the host itself."""
        found = {ip for file in self._resolvers for ip in _named(file)}
        return tuple(sorted(ip for ip in found if not ip.is_loopback))

    def run(self, stop: threading.Event, every_s: float = LOOK_UP_S) -> None:
        """Resolve the names repeatedly until `stop`. An address is kept when that fails."""
        while self.names and not stop.is_set():
            for name in self.names:
                try:
                    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
                    self._known[name] = frozenset(IPv4Address(at[0]) for *_, at in found)
                except OSError as error:
                    log.debug("%s cannot be resolved: %s", name, error)
            stop.wait(every_s)


def _named(file: Path) -> Iterable[IPv4Address]:
    try:
        text = read_file(file).decode(errors="replace")
    except OSError:
        return
    for words in map(str.split, text.splitlines()):
        if words[:1] == ["nameserver"]:
            with suppress(ValueError, IndexError):
                yield IPv4Address(words[1])
