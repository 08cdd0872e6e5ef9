"""Tells a bridge which MAC an address has now, so that nobody sends to the one it had before.

An announcement goes out of the bridge itself to all of its ports: the bridge learns no place of a
MAC from what it sends. The host, which does not hear it, forgets what it knows. What cannot be
told is left: after half a minute everybody asks anew.

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
_ARP = struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)  # of Ethernet and IPv4: who has …?


class Announcer:
    """The neighbours' side of the host. It makes nothing that stays."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (Veth,)

    def __init__(self) -> None:
        self._channel = Channel()
        self._packets = _packets()

    def close(self) -> None:
        """Give the sockets back."""
        self._channel.close()
        if self._packets:
            self._packets.close()

    def observe(self) -> frozenset[HostObject]:
        """Return nothing, for nothing stays."""
        return frozenset()

    def apply(self, plan: Plan) -> None:
        """Announce the addresses behind new veths, and have the host forget those of old ones."""
        for veth in [item for item in (*plan.remove, *plan.add) if isinstance(item, Veth)]:
            try:
                self._forget(veth)
                if veth in plan.add:
                    self._announce(veth)
            except OSError as error:
                log.debug("neighbours of %s were not told: %s", veth.name, error.strerror)

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
    """Open a socket that sends whole packets and hears none; to close one takes the kernel long."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
    except OSError as error:
        log.warning(
            "containers are told of no new MACs, and may not reach one that has another MAC than "
            "before for half a minute: %s; grant CAP_NET_RAW",
            error.strerror,
        )
        return None


def announcement(mac: str, ip: IPv4Address) -> bytes:
    """Encode a gratuitous ARP request, from an address about itself."""
    sender = bytes.fromhex(mac.replace(":", ""))
    return _EVERYBODY + sender + _ARP + sender + ip.packed + bytes(6) + ip.packed
