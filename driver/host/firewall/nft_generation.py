"""The number that the kernel raises with every change of the nftables ruleset, by anybody.

Changes by the iptables programs of the "nft" variant count, too. libnftables does not return it.
Each change of ports asks twice, so it has a socket of its own: 6 µs, where a `Channel` takes 19.
Source: linux/netfilter/{nfnetlink,nf_tables}.h.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import closing

from driver.host.netlink import constants as nl

_GET = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_REQUEST = nl.NLMSGHDR.pack(20, _GET, nl.NLM_F_REQUEST, 0, 0) + bytes(4)
_ANSWER = struct.Struct("=4xH14xH2x")  # kind; length of the attribute NFTA_GEN_ID
NONE = -1


class Generation:
    """Asks for it, in the network namespace in which this is made. Any thread may ask."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, nl.NETLINK_NETFILTER)
        self._lock = threading.Lock()

    def number(self) -> int:
        """Return it; `NONE` where the kernel has no nf_tables."""
        with self._lock:
            self._socket.send(_REQUEST)
            answer = self._socket.recv(4096)
        kind, length = _ANSWER.unpack_from(answer)
        if kind == nl.NLMSG_ERROR:
            return NONE
        return int.from_bytes(answer[_ANSWER.size : 20 + length], "big")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def has_nf_tables() -> bool:
    """Whether the kernel has nf_tables; asking loads the module where it is one."""
    try:
        with closing(Generation()) as generation:
            return generation.number() != NONE
    except OSError:
        return False  # not even netfilter's netlink
