"""Notices changes of legacy iptables' filter table, which reports none.

The kernel returns in microseconds how many rules the table has and where each chain begins and
ends. Asking would make the table live, so only a live one is asked for. Source:
linux/netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from pathlib import Path

_LIVE = Path("/proc/thread-self/net/ip_tables_names")
_TABLE = "filter"
_GET_INFO = 64  # IPT_SO_GET_INFO, of struct ipt_getinfo
_INFO = struct.Struct("=32s13I")
_libc = ctypes.CDLL(None, use_errno=True)


class LegacyFilter:
    """The table in the namespace of the thread that makes this. Any thread may ask."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # any does; it is not bound
        self._last = b""

    def disturbed(self) -> bool:
        """Whether it changed since this was last asked."""
        before, self._last = self._last, self._look()
        return self._last != before

    def _look(self) -> bytes:
        if not (_LIVE.exists() and _TABLE in _LIVE.read_text().split()):
            return b""
        # not by Python's own call, which does not hand the table's name over
        answer = ctypes.create_string_buffer(_TABLE.encode(), _INFO.size)
        size = ctypes.c_uint(_INFO.size)
        place = self._socket.fileno(), socket.IPPROTO_IP, _GET_INFO
        code = _libc.getsockopt(*place, answer, ctypes.byref(size))
        return b"" if code else answer.raw

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
