"""Which UDP ports of this host take frames of an overlay, and by which links those come.

Nothing in such a frame proves who sent it: whoever reaches the port is in every network.
Imports only `events`. Source: linux/if_link.h, flannel pkg/backend/udp.
"""

from __future__ import annotations

from collections.abc import Iterable

from driver.host.netlink.channel import Link, attributes, integer

_PARENT, _PORT = 3, 15  # of a vxlan's details
_UDP_PORT = 8285  # flannel's udp backend; its device does not tell the port


def ports(links: Iterable[Link]) -> frozenset[int]:
    """Return the ports of flannel's devices, this plugin's own among them."""
    found = set()
    for link in links:
        if link.name.startswith("flannel"):
            if link.kind == "vxlan":
                found.add(int.from_bytes(attributes(link.detail).get(_PORT, b""), "big"))
            elif link.kind == "tun":
                found.add(_UDP_PORT)
    return frozenset(found - {0})


def carriers(links: Iterable[Link]) -> frozenset[int]:
    """Return the numbers of the links that vxlan devices send by."""
    found = (attributes(link.detail).get(_PARENT, b"") for link in links if link.kind == "vxlan")
    return frozenset(integer(number) for number in found) - {0}
