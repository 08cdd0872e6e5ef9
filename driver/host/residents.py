"""Looks who is at the other ends of our veths: the running containers, whatever the state says.

A veth whose other end is in another namespace has a container there: what nobody uses, Docker
moves back to the host or removes with the sandbox. Imports `events` and `sandbox`.
Source: linux/{if_link,net_namespace,rtnetlink}.h.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing, suppress
from ipaddress import IPv4Address
from pathlib import Path
from sys import byteorder

from driver.errors import HostError
from driver.host import sandbox
from driver.host.netlink import channel
from driver.host.netlink.channel import (
    DUMP,
    MAIN_TABLE,
    UNICAST,
    Channel,
    Link,
    attribute,
    attributes,
    integer,
)
from driver.model.facts import Resident

RUN, SANDBOXES = Path("/run"), "*/netns/*"  # where Docker keeps them, also with another exec-root
GETNSID = 90
_NUMBER, _FILE = 1, 3  # of a namespace: its number here, and a file that stands for it
_GATEWAY = 5  # of a route


class Residents:
    """The other ends of our veths, seen from the namespace of the thread that makes it."""

    def __init__(self, run: Path = RUN) -> None:
        """`run` is the folder that Docker's sandboxes are in."""
        self._channel, self._run = Channel(), run

    def close(self) -> None:
        """Give the socket back."""
        self._channel.close()

    def occupied(self) -> frozenset[str]:
        """Name the host ends of our veths whose other end is in another network namespace."""
        return frozenset(link.name for link in self._occupied())

    def _occupied(self) -> list[Link]:
        links = self._channel.links().values()
        return [k for k in links if k.ours and k.kind == "veth" and k.elsewhere is not None]

    def look(self, host_ends: frozenset[str]) -> tuple[Resident, ...]:
        """Look into the sandboxes of some veths; one that cannot be entered is left out."""
        found = []
        paths = self._paths()
        for link in self._occupied():
            path = paths.get(link.elsewhere)
            if link.name in host_ends and path is not None:
                with suppress(OSError, HostError):
                    found += _inside(link, str(path))
        return tuple(found)

    def _paths(self) -> dict[int | None, Path]:
        """Find Docker's sandboxes by the number that this namespace has for each."""
        return {self._number(path): path for path in sorted(self._run.glob(SANDBOXES))}

    def _number(self, path: Path) -> int | None:
        try:
            opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            body = bytes(20) + attribute(_FILE, opened.to_bytes(4, byteorder))
            answer = self._channel.ask(GETNSID, body, fine=errno.EINVAL)  # no namespace any more
        except OSError:
            return None
        finally:
            os.close(opened)
        return integer(attributes(answer[0], 20)[_NUMBER]) if answer else None


def _inside(link: Link, path: str) -> list[Resident]:
    ends = sandbox.Ends(link.number, link.peer)
    with closing(sandbox.enter(path)) as inside:
        there = sandbox.interface(inside, ends)
        if there is None:
            return []
        ips = tuple(sorted(sandbox.addresses(inside, ends.inside)))
        return [Resident(link.name, path, there.name, there.mac, ips, _gateways(inside))]


def _gateways(inside: Channel) -> frozenset[IPv4Address]:
    asked = channel.ROUTE.pack(socket.AF_INET, 0, 0, 0, MAIN_TABLE, 0, 0, UNICAST, 0)
    found = set()
    for body in inside.ask(channel.GETROUTE, asked, DUMP, fine=errno.ENOENT):
        told = attributes(body, channel.ROUTE.size)
        if not channel.ROUTE.unpack_from(body)[1] and _GATEWAY in told:
            found.add(IPv4Address(told[_GATEWAY]))
    return frozenset(found)
