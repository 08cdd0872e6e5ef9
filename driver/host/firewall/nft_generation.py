"""The number that the kernel counts up with every change of the nftables ruleset, by anybody.

Changes by the iptables programs of the "nft" variant count, too. libnftables does not return it.
Source: linux/netfilter/{nfnetlink,nf_tables}.h.
"""

from __future__ import annotations

import socket
import struct
import threading

_NETFILTER, _GET = 12, 10 << 8 | 16  # NETLINK_NETFILTER; NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_REQUEST = struct.pack("=IHHIIBBH", 20, _GET, 1, 0, 0, 0, 0, 0)
_KIND = struct.Struct("=4xH")
_ERROR = 2
_ANSWER = struct.Struct("=20xHH")  # headers, then the attribute NFTA_GEN_ID: length and kind
NONE = -1


class Generation:
    """Asks for it, in the network namespace in which this is made. Any thread may ask."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETFILTER)
        self._lock = threading.Lock()

    def number(self) -> int:
        """Return it; `NONE` where the kernel has no nf_tables."""
        with self._lock:
            self._socket.send(_REQUEST)
            answer = self._socket.recv(4096)
        if _KIND.unpack_from(answer)[0] == _ERROR:
            return NONE
        length, _ = _ANSWER.unpack_from(answer)
        return int.from_bytes(answer[_ANSWER.size : 20 + length], "big")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def has_nf_tables() -> bool:
    """Whether the kernel has nf_tables; asking loads the module where it is one."""
    try:
        generation = Generation()
    except OSError:
        return False  # not even netfilter's netlink
    try:
        return generation.number() != NONE
    finally:
        generation.close()
