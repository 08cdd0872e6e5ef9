"""Announces new MACs on a bridge, so that nobody goes on sending to an old one.

The bridge device itself sends to all ports: a bridge learns no MACs from its own frames. The host
does not receive them, so its own entry is deleted. A failure is not retried: after half a minute
everybody asks anew.

Source: packet(7), RFC 826, RFC 5227.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from ipaddress import IPv4Address
from typing import ClassVar

from driver.host.netlink import constants as nl
from driver.host.netlink import encoder
from driver.host.netlink.channel import Channel
from driver.model.objects import HostObject, Plan, Veth

log = logging.getLogger(__name__)

_EVERYBODY = b"\xff" * 6
_ARP = struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)  # Ethernet, IPv4, request


class Announcer:
    """Announces addresses on our bridges, which leaves nothing to observe."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (Veth,)

    def __init__(self) -> None:
        self._channel = Channel()
        self._packets = _packets()

    def close(self) -> None:
        """Close the sockets."""
        self._channel.close()
        if self._packets:
            self._packets.close()

    def observe(self) -> frozenset[HostObject]:
        """Return nothing."""
        return frozenset()

    def apply(self, plan: Plan) -> None:
        """Announce the addresses of new veths; forget the MACs of those and of removed ones."""
        for veth in [item for item in (*plan.remove, *plan.add) if isinstance(item, Veth)]:
            try:
                self._forget(veth)
                if veth in plan.add:
                    self._announce(veth)
            except OSError as error:
                log.debug("addresses of %s are not announced: %s", veth.name, error.strerror)

    def _forget(self, veth: Veth) -> None:
        if veth.ips and (bridge := self._channel.link(veth.bridge)):
            for ip in veth.ips:
                request = encoder.neighbour(bridge.number, ip)
                self._channel.ask(nl.RTM_DELNEIGH, request, fine=errno.ENOENT)

    def _announce(self, veth: Veth) -> None:
        if self._packets:
            for ip in veth.ips:
                self._packets.sendto(announcement(veth.mac, ip), (veth.bridge, 0))


def _packets() -> socket.socket | None:
    """Open a socket that only sends frames; it stays open, since closing one is slow."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
    except OSError as error:
        log.warning(
            "new MACs are not announced: a container whose MAC has changed may be out of reach for "
            "half a minute: %s; grant CAP_NET_RAW",
            error.strerror,
        )
        return None


def announcement(mac: str, ip: IPv4Address) -> bytes:
    """Encode the frame of a gratuitous ARP request."""
    sender = bytes.fromhex(mac.replace(":", ""))
    return _EVERYBODY + sender + _ARP + sender + ip.packed + bytes(6) + ip.packed
