"""Puts lease addresses on containers' interfaces inside their sandboxes, beside Docker's.

A short-lived thread opens a socket there, which is closed as soon as the address is set or seen.
The route to the overlay is in a table of its own, looked up after all routes of the main table but
the default one: in the main table it would keep Docker from giving the container an address of
another flannel network (libnetwork, checkRouteConflict). All goes with the interface, except the
rules, which go with the sandbox.

The kernel reports what is removed in sandboxes, too, to those who have CAP_NET_BROADCAST.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar

from driver.errors import HostError
from driver.host.namespaces import in_sandbox
from driver.host.netlink import constants as nl
from driver.host.netlink import dump, encoder, monitor_filter
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import Link, attributes, integer, ipv4
from driver.model.identity import Key
from driver.model.objects import HostObject, Plan, SandboxAddress
from driver.model.records import ANY, HOST_END_PREFIX, replace

TABLE = 91
_NO_LIMIT = (1 << 32) - 1
# priority, before the main table's rule (32766) and those of VPN programs; table; the rule applies
# to routes with prefixes longer than this
RULES = {(32000, nl.RT_TABLE_MAIN, 0), (32001, TABLE, _NO_LIMIT)}
_Way = tuple[IPv4Network, IPv4Address, IPv4Address]  # destination, gateway, source of a route


class Sandboxes:
    """The lease addresses in sandboxes. It observes only those that it set."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (SandboxAddress,)

    def __init__(self) -> None:
        self._channel, self._losses = Channel(), Channel()
        monitor_filter.take_losses(self._losses.socket, TABLE)
        with suppress(OSError):  # without the right, the passes see what is lost
            self._losses.socket.setsockopt(nl.SOL_NETLINK, nl.NETLINK_LISTEN_ALL_NSID, 1)
        self._losses.subscribe(nl.RTNLGRP_IPV4_IFADDR, nl.RTNLGRP_IPV4_ROUTE)
        self._set: dict[Key, SandboxAddress] = {}

    def close(self) -> None:
        """Close the sockets; what is set stays."""
        self._channel.close()
        self._losses.close()

    def disturbed(self) -> bool:
        """Whether somebody removed what was set, since this was last asked; cheap."""
        lost = {_lost(kind, body) for kind, body in self._losses.heard()}
        mine = [item for item in list(self._set.values()) if item.ip.ip in lost]
        return None in lost or any(map(self._lacks, mine))

    def _lacks(self, item: SandboxAddress) -> bool:
        """Whether a sandbox that has the interface does not have all that was set."""
        try:
            return bool(self._veth(item)) and self._look(item) != [item]
        except OSError:
            return False  # the sandbox is ending

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Observe also the addresses that an earlier run has set."""
        self._set |= {item.key: item for item in objects if isinstance(item, SandboxAddress)}

    def observe(self) -> frozenset[HostObject]:
        """Return the addresses that are set; one without its route differs from a wanted one."""
        found = set[HostObject]()
        for item in list(self._set.values()):
            try:
                found.update(self._look(item))
            except OSError:
                continue  # setting it anew fails, too, and that is reported
        return frozenset(found)

    def _look(self, item: SandboxAddress) -> list[HostObject]:
        if not (veth := self._veth(item)):
            return []
        with closing(enter(item.sandbox)) as inside:
            there = dump.addresses(inside, veth.peer) if interface(inside, veth) else ()
            if item.ip not in {address.interface for address in there}:
                return []
            ways = _ways(inside, veth.peer)
            if item.via and (not _rules(inside) >= RULES or ways != _wanted(item)):
                return [replace(item, via=None)]
        return [item]

    def apply(self, plan: Plan) -> None:
        """Set addresses on interfaces that are in their sandbox. An address goes with its veth.

        Errors: an ExceptionGroup of HostError, one for each sandbox where it was not possible.
        """
        errors = []
        for item in plan.remove:
            self._set.pop(item.key, None)
        for item in [item for item in plan.new() if isinstance(item, SandboxAddress)]:
            try:
                if self._ensure(item):
                    self._set[item.key] = item
            except OSError as error:
                errors.append(HostError(_words(item, error)))
        if errors:
            raise ExceptionGroup("sandboxes", errors)

    def _ensure(self, item: SandboxAddress) -> bool:
        """Set an address; return whether its interface was there to set it on."""
        if not (veth := self._veth(item)):
            return False
        with closing(enter(item.sandbox)) as inside:
            link = interface(inside, veth)
            if link is None:
                raise OSError(errno.ENODEV, f"the other end of {item.link} is not in it")
            if not link.up:
                return False
            request = encoder.address(link.number, item.ip)
            inside.ask(nl.RTM_NEWADDR, request, nl.NEW, fine=errno.EEXIST)
            if item.via:
                _set_ways(inside, link.number, _wanted(item))
        return True

    def _veth(self, item: SandboxAddress) -> Link | None:
        """Return the host end; None if it is gone, or the other end is on the host, too."""
        link = self._channel.link(item.link)
        return link if link and link.elsewhere is not None else None


def _lost(kind: int, body: bytes) -> IPv4Address | None:
    """Return the address that went, or whose route did; None where reports were lost."""
    if kind == nl.NLMSG_OVERRUN:
        return None
    if kind == nl.RTM_DELADDR:
        return ipv4(attributes(body, nl.IFADDRMSG.size).get(nl.IFA_LOCAL, b""))
    return ipv4(attributes(body, nl.RTMSG.size).get(nl.RTA_PREFSRC, b""))


def _words(item: SandboxAddress, error: OSError) -> str:
    return (
        f"endpoint {item.link.removeprefix(HOST_END_PREFIX)} lacks its lease address "
        f"{item.ip.ip}, and other hosts do not reach it: sandbox {item.sandbox}: {error.strerror}"
    )


def enter(path: str) -> Channel:
    """Open a socket in a sandbox. Errors: OSError."""
    return in_sandbox(path, Channel)


def interface(inside: Channel, veth: Link) -> Link | None:
    """Return the other end of a veth; None where another link has its index."""
    link = inside.link_at(veth.peer)
    return link if link and link.peer == veth.number else None


def _wanted(item: SandboxAddress) -> set[_Way]:
    return {(item.overlay, item.via, item.ip.ip)} if item.overlay and item.via else set()


def _set_ways(inside: Channel, index: int, wanted: set[_Way]) -> None:
    for rule in RULES:
        inside.ask(nl.RTM_NEWRULE, _rule(*rule), nl.NEW, fine=errno.EEXIST)
    for way in wanted:
        # another flannel network of the container has a route to the same overlay
        beside = nl.NLM_F_CREATE | nl.NLM_F_APPEND
        inside.ask(nl.RTM_NEWROUTE, _route(way, index), beside, fine=errno.EEXIST)
    for way in _ways(inside, index) - wanted:
        inside.ask(nl.RTM_DELROUTE, _route(way, index), fine=errno.ESRCH)


def _rule(priority: int, table: int, longer: int) -> bytes:
    head = nl.RTMSG.pack(socket.AF_INET, 0, 0, 0, table, 0, 0, nl.FR_ACT_TO_TBL, 0)
    attrs = (nl.FRA_PRIORITY, priority), (nl.FRA_SUPPRESS_PREFIXLEN, longer)
    return head + b"".join(encoder.u32(*attr) for attr in attrs)


def _route(way: _Way, index: int) -> bytes:
    dst, via, source = way
    ends = encoder.ipv4(nl.RTA_GATEWAY, via), encoder.ipv4(nl.RTA_PREFSRC, source)
    return encoder.route(dst, encoder.u32(nl.RTA_OIF, index), *ends, table=TABLE)


def _ways(inside: Channel, index: int) -> set[_Way]:
    """List our routes by an interface."""
    found = dump.routes(inside, nl.RTN_UNICAST, table=TABLE, ours=True)
    return {
        (route.dst, via or ANY, route.source)
        for route in found
        for link, via in route.hops
        if link == index
    }


def _rules(inside: Channel) -> set[tuple[int, ...]]:
    asked = nl.RTMSG.pack(socket.AF_INET, *bytes(8))
    found = [attributes(body, nl.RTMSG.size) for body in inside.dump(nl.RTM_GETRULE, asked)]
    kinds = (nl.FRA_PRIORITY, nl.FRA_TABLE, nl.FRA_SUPPRESS_PREFIXLEN)
    return {tuple(integer(rule.get(kind, b"")) for kind in kinds) for rule in found}
