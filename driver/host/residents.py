"""Finds who is at the other ends of our veths: the running containers, whatever the state says.

A veth whose other end is in another namespace has a container there: Docker moves unused ends back
to the host, or removes them with the sandbox.
"""

from __future__ import annotations

import errno
import os
from contextlib import closing, suppress
from ipaddress import IPv4Address
from pathlib import Path

from driver.errors import HostError
from driver.host import sandbox
from driver.host.netlink import constants as nl
from driver.host.netlink import dump, encoder
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import Link, attributes, integer
from driver.model.facts import Resident
from driver.model.records import ANY

RUN, SANDBOXES = Path("/run"), "*/netns/*"  # where Docker keeps them, also with another exec-root
_RTGENMSG = bytes(20)  # header, family


class Residents:
    """The other ends of our veths, seen from the namespace of the thread that makes this."""

    def __init__(self, run: Path = RUN) -> None:
        """`run` is the folder that Docker's sandboxes are in."""
        self._channel, self._run = Channel(), run

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    def occupied(self) -> frozenset[str]:
        """List the host ends of our veths whose other end is in another network namespace."""
        return frozenset(link.name for link in self._occupied())

    def _occupied(self) -> list[Link]:
        links = self._channel.links("veth").values()
        return [link for link in links if link.ours and link.elsewhere is not None]

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
            asked = _RTGENMSG + encoder.u32(nl.NETNSA_FD, opened)
            # EINVAL: no longer a namespace
            answer = self._channel.ask(nl.RTM_GETNSID, asked, fine=errno.EINVAL)
        except OSError:
            return None
        finally:
            os.close(opened)
        return integer(attributes(answer[0], len(_RTGENMSG))[nl.NETNSA_NSID]) if answer else None


def _inside(link: Link, path: str) -> list[Resident]:
    with closing(sandbox.enter(path)) as inside:
        there = sandbox.interface(inside, link)
        if there is None:
            return []
        ips = tuple(sorted(address.interface for address in dump.addresses(inside, link.peer)))
        return [Resident(link.name, path, there.name, there.mac, ips, _gateways(inside))]


def _gateways(inside: Channel) -> frozenset[IPv4Address]:
    found = dump.routes(inside, nl.RTN_UNICAST, table=nl.RT_TABLE_MAIN)
    hops = [hop for route in found if not route.dst.prefixlen for hop in route.hops]
    return frozenset(gateway for _, gateway in hops if gateway not in (None, ANY))
