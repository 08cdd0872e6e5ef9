"""Hears what is taken away in sandboxes: addresses, and the routes of our table.

The kernel reports it of every namespace that one of this one's links leads to, but only to those
who have the right to broadcasts.
"""

from __future__ import annotations

from contextlib import suppress

from driver.host.netlink import constants as nl
from driver.host.netlink import monitor_filter
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import attributes


class Losses(Channel):
    """What was lost since it was last asked."""

    def __init__(self, table: int) -> None:
        """Begin to listen; `table` is where our routes in sandboxes are."""
        super().__init__()
        monitor_filter.take_losses(self.socket, table)
        with suppress(OSError):  # without the right, the passes see what is lost
            self.socket.setsockopt(nl.SOL_NETLINK, nl.NETLINK_LISTEN_ALL_NSID, 1)
        self.subscribe(nl.RTNLGRP_IPV4_IFADDR, nl.RTNLGRP_IPV4_ROUTE)

    def reported(self) -> tuple[set[bytes], bool]:
        """Return the addresses that went, or whose routes did, and whether reports were lost."""
        lost, overrun = set[bytes](), False
        for kind, body in self.heard():
            if kind == nl.NLMSG_OVERRUN:
                overrun = True
            elif kind == nl.RTM_DELADDR:
                lost.add(attributes(body, nl.IFADDRMSG.size).get(nl.IFA_LOCAL, b""))
            else:
                lost.add(attributes(body, nl.RTMSG.size).get(nl.RTA_PREFSRC, b""))
        return lost, overrun
