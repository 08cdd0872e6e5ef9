"""Hears what is taken away in sandboxes: addresses, and the routes of our table.

The kernel tells it of every namespace that one of this one's links leads to, but only to those who
have the right to broadcasts. Imports `events` and `news_filter`. Source: linux/netlink.h.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from driver.host.netlink import channel, monitor_filter
from driver.host.netlink.channel import Channel, attributes

_SOL_NETLINK, _ADD_GROUP, _ALL_NAMESPACES = 270, 1, 8
_GROUPS = (5, 7)  # IPv4 addresses, IPv4 routes
_LOCAL, _SOURCE = 2, 7  # attributes of an address, of a route


class Losses(Channel):
    """What was lost since it was last asked."""

    def __init__(self, table: int) -> None:
        """Begin to listen; `table` is where our routes in sandboxes are."""
        super().__init__()
        monitor_filter.take_losses(self.socket, table)
        self.socket.setblocking(False)
        with suppress(OSError):  # without the right, the passes see what is lost
            self.socket.setsockopt(_SOL_NETLINK, _ALL_NAMESPACES, 1)
        for group in _GROUPS:
            self.socket.setsockopt(_SOL_NETLINK, _ADD_GROUP, group)

    def told(self) -> tuple[set[bytes], bool]:
        """Return the addresses that went, or whose routes did, and whether more was told."""
        lost, overrun = set[bytes](), False
        while True:
            try:
                data = self.socket.recv(channel.RECEIVE_BYTES)
            except BlockingIOError:
                return lost, overrun
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overrun = True
                continue
            for kind, _, _, body in channel.messages(data):
                of_address = kind == channel.DELADDR
                size = (channel.ADDRESS if of_address else channel.ROUTE).size
                lost.add(attributes(body, size).get(_LOCAL if of_address else _SOURCE, b""))
