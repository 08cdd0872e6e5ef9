"""Puts lease addresses on containers' interfaces inside their sandboxes, beside Docker's.

A short-lived thread enters a sandbox to open a socket there, and ends; the socket is closed as
soon as the address is set or seen. The route to the overlay is in a table of its own, asked after
all of the main table but its default route: in the main table it would keep Docker from giving
the container an address of another flannel network (libnetwork, checkRouteConflict). All of it
goes with the interface, but for the rules, which go with the sandbox.

Imports `events` and `losses`. Source: linux/{rtnetlink,fib_rules,if_link}.h, setns(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Iterable
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from sys import byteorder
from typing import ClassVar, NamedTuple

from driver.errors import HostError
from driver.host.netlink import channel
from driver.host.netlink.channel import (
    DUMP,
    MAIN_TABLE,
    PROTOCOL,
    Channel,
    attribute,
    attributes,
    integer,
)
from driver.host.sandbox_monitor import Losses
from driver.model.objects import HostObject, Key, Plan, SandboxAddress
from driver.model.records import HOST_END_PREFIX, replace

TABLE = 91
NEW, ONE_MORE = 0x600, 0xC00  # make it, fail if it exists; make it beside others
NEWRULE, GETRULE = 32, 34
_TO_TABLE, _UNICAST = 1, 1
_LINK, _NETNSID = 5, 37  # of a link
_ADDRESS, _LOCAL = 1, 2  # of an address
_DST, _OIF, _GATEWAY, _SOURCE = 1, 4, 5, 7  # of a route
_PRIORITY, _LONGER, _IN_TABLE = 6, 14, 15  # of a rule; it takes longer prefixes only
_NO_LIMIT = (1 << 32) - 1
_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Ends(NamedTuple):
    """A veth's ends by their indexes, each in its own namespace."""

    outside: int
    inside: int


class _Way(NamedTuple):
    """A route to the overlay."""

    dst: IPv4Network
    via: IPv4Address
    source: IPv4Address


class _Rule(NamedTuple):
    """A rule that asks a table, if `longer` only for prefixes longer than that."""

    priority: int
    table: int
    longer: int


# just before the main table's, 32766, and before what VPN programs put there
RULES = {_Rule(32000, MAIN_TABLE, 0), _Rule(32001, TABLE, _NO_LIMIT)}


class Sandboxes:
    """The sandboxes' side of the host. It looks only where it has set an address."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (SandboxAddress,)

    def __init__(self) -> None:
        self._channel, self._losses = Channel(), Losses(TABLE)
        self._set: dict[Key, SandboxAddress] = {}

    def close(self) -> None:
        """Give the sockets back."""
        self._channel.close()
        self._losses.close()

    def disturbed(self) -> bool:
        """Whether somebody took away what was set, since this was last asked; cheap."""
        lost, more = self._losses.told()
        mine = [item for item in list(self._set.values()) if item.ip.ip.packed in lost]
        return more or any(map(self._lacks, mine))

    def _lacks(self, item: SandboxAddress) -> bool:
        """Whether a sandbox that has the interface does not have all that was set."""
        try:
            return bool(self._ends(item)) and self._look(item) != [item]
        except OSError:
            return False  # it ends

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Look where an earlier run has set addresses, too."""
        self._set |= {item.key: item for item in objects if isinstance(item, SandboxAddress)}

    def observe(self) -> frozenset[HostObject]:
        """Give the addresses that are set; one without its way out differs from a wanted one."""
        found = set[HostObject]()
        for item in list(self._set.values()):
            try:
                found.update(self._look(item))
            except OSError:
                continue  # it is made anew, and that tells why it cannot be
        return frozenset(found)

    def _look(self, item: SandboxAddress) -> list[HostObject]:
        if not (ends := self._ends(item)):
            return []
        with closing(enter(item.sandbox)) as inside:
            if not interface(inside, ends) or item.ip not in addresses(inside, ends.inside):
                return []
            if item.via and (not _rules(inside) >= RULES or _ways(inside, ends) != _wanted(item)):
                return [replace(item, via=None)]
        return [item]

    def apply(self, plan: Plan) -> None:
        """Set addresses where Docker has put the interface already. One goes with its veth.

        Errors: an ExceptionGroup of HostError, one for each sandbox where it was not possible.
        """
        errors = []
        for item in plan.remove:
            self._set.pop(item.key, None)
        new = (*plan.add, *(new for _, new in plan.change))
        for item in [item for item in new if isinstance(item, SandboxAddress)]:
            try:
                if self._ensure(item):
                    self._set[item.key] = item
            except OSError as error:
                errors.append(HostError(_words(item, error)))
        if errors:
            raise ExceptionGroup("sandboxes", errors)

    def _ensure(self, item: SandboxAddress) -> bool:
        """Set an address; tell whether its interface was there to set it on."""
        if not (ends := self._ends(item)):
            return False
        with closing(enter(item.sandbox)) as inside:
            link = interface(inside, ends)
            if link is None:
                raise OSError(errno.ENODEV, f"the other end of {item.link} is not in it")
            if not link.up:
                return False
            _set_address(inside, ends, item.ip)
            if item.via:
                _set_ways(inside, ends, _wanted(item))
        return True

    def _ends(self, item: SandboxAddress) -> Ends | None:
        """Look a veth up; None if it is gone, or has both ends on the host."""
        body = bytes(channel.LINK.size) + attribute(3, item.link.encode() + b"\0")
        answer = self._channel.ask(channel.GETLINK, body, fine=errno.ENODEV)
        found = attributes(answer[0], channel.LINK.size) if answer else {}
        if _NETNSID not in found:
            return None
        return Ends(channel.read_link(answer[0]).number, integer(found[_LINK]))


def _words(item: SandboxAddress, error: OSError) -> str:
    return (
        f"endpoint {item.link.removeprefix(HOST_END_PREFIX)} lacks its lease address "
        f"{item.ip.ip}, and other hosts do not reach it: sandbox {item.sandbox}: {error.strerror}"
    )


def enter(path: str) -> Channel:
    """Open a socket in a sandbox."""
    got: list[Channel | OSError] = []

    def enter() -> None:
        try:
            got.append(_channel_in(path))
        except OSError as error:
            got.append(error)

    thread = threading.Thread(target=enter, name="sandbox")
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    thread.join()
    if isinstance(got[0], OSError):
        raise got[0]
    return got[0]


def _channel_in(path: str) -> Channel:
    """Take this thread into a sandbox, for good, and open a socket."""
    found = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if _libc.setns(found, _NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(found)
    return Channel()


def interface(inside: Channel, ends: Ends) -> channel.Link | None:
    """Find the interface; one that only has its number has another end."""
    body = channel.LINK.pack(0, ends.inside, 0, 0)
    answer = inside.ask(channel.GETLINK, body, fine=errno.ENODEV)
    found = attributes(answer[0], channel.LINK.size) if answer else {}
    if integer(found.get(_LINK, b"")) != ends.outside:
        return None
    return channel.read_link(answer[0])


def addresses(inside: Channel, index: int) -> set[IPv4Interface]:
    """List the IPv4 addresses of an interface."""
    asked = channel.ADDRESS.pack(socket.AF_INET, 0, 0, 0, index)
    found = set()
    for body in inside.ask(channel.GETADDR, asked, DUMP):
        _, length, *_ = channel.ADDRESS.unpack_from(body)
        local = attributes(body, channel.ADDRESS.size)[_LOCAL]
        found.add(IPv4Interface((local, length)))
    return found


def _set_address(inside: Channel, ends: Ends, ip: IPv4Interface) -> None:
    length = ip.network.prefixlen
    body = channel.ADDRESS.pack(socket.AF_INET, length, 0, 0, ends.inside)
    body += attribute(_LOCAL, ip.ip.packed) + attribute(_ADDRESS, ip.ip.packed)
    inside.ask(channel.NEWADDR, body, NEW, fine=errno.EEXIST)


def _wanted(item: SandboxAddress) -> set[_Way]:
    return {_Way(item.overlay, item.via, item.ip.ip)} if item.overlay and item.via else set()


def _set_ways(inside: Channel, ends: Ends, wanted: set[_Way]) -> None:
    for priority, table, longer in RULES:
        body = channel.ROUTE.pack(socket.AF_INET, 0, 0, 0, table, 0, 0, _TO_TABLE, 0)
        body += attribute(_PRIORITY, _number(priority)) + attribute(_LONGER, _number(longer))
        inside.ask(NEWRULE, body, NEW, fine=errno.EEXIST)
    for way in wanted:
        # beside that of another such network, which leads to the same overlay
        inside.ask(channel.NEWROUTE, _route(way, ends.inside), ONE_MORE, fine=errno.EEXIST)
    for way in _ways(inside, ends) - wanted:
        inside.ask(channel.DELROUTE, _route(way, ends.inside), fine=errno.ESRCH)


def _route(way: _Way, index: int) -> bytes:
    length, kind = way.dst.prefixlen, _UNICAST
    body = channel.ROUTE.pack(socket.AF_INET, length, 0, 0, TABLE, PROTOCOL, 0, kind, 0)
    body += attribute(_DST, way.dst.network_address.packed) + attribute(_OIF, _number(index))
    return body + attribute(_GATEWAY, way.via.packed) + attribute(_SOURCE, way.source.packed)


def _ways(inside: Channel, ends: Ends) -> set[_Way]:
    """List the routes of ours by an interface; there is no table before the first."""
    asked = channel.ROUTE.pack(socket.AF_INET, 0, 0, 0, TABLE, PROTOCOL, 0, 0, 0)
    found = set()
    for body in inside.ask(channel.GETROUTE, asked, DUMP, fine=errno.ENOENT):
        _, length, *_ = channel.ROUTE.unpack_from(body)
        told = attributes(body, channel.ROUTE.size)
        if integer(told.get(_OIF, b"")) == ends.inside:
            dst = IPv4Network((told.get(_DST, bytes(4)), length))
            via, source = (IPv4Address(told.get(k, bytes(4))) for k in (_GATEWAY, _SOURCE))
            found.add(_Way(dst, via, source))
    return found


def _rules(inside: Channel) -> set[_Rule]:
    found = set()
    asked = channel.ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    for body in inside.ask(GETRULE, asked, DUMP):
        told = attributes(body, channel.ROUTE.size)
        names = (_PRIORITY, _IN_TABLE, _LONGER)
        found.add(_Rule(*(integer(told.get(name, b"")) for name in names)))
    return found


def _number(value: int) -> bytes:
    return value.to_bytes(4, byteorder)
