"""Writes published ports into the nft maps by netlink.

libnftables asks for all tables, chains and sets before each change, at 0.2 ms; this takes 0.03.
A context of it that is made after thousands of sockets must change nothing: its select() ends the
process if its own socket has a number above 1023. So an earlier run's table is removed here, too.
Source: linux/netfilter/{nfnetlink,nf_tables}.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from driver.host.firewall.nft_elements import place
from driver.host.firewall.nft_table import TABLE
from driver.host.netlink import constants as nl
from driver.host.netlink.channel import Channel, Request
from driver.host.netlink.encoder import attribute, nest, string
from driver.model.firewall import PortMap
from driver.model.records import ANY, PROTO_NUMBERS

_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_CREATE, _DELETE = 10 << 8 | 12, 10 << 8 | 14  # NFNL_SUBSYS_NFTABLES, NFT_MSG_*SETELEM
_DELETE_TABLE = 10 << 8 | 2
_BATCH = nl.NFGENMSG.pack(0, 0, socket.htons(10))  # for NFNL_SUBSYS_NFTABLES
_INET = nl.NFGENMSG.pack(1, 0, 0)  # NFPROTO_INET
_HEAD = nl.NLMSGHDR.pack(nl.NFGENMSG.size, _END, nl.NLM_F_REQUEST, 0, 0)
_END_OF_BATCH = _HEAD + _BATCH[nl.NLMSGHDR.size :]
_TABLE, _SET, _ELEMENTS, _ELEMENT = 1, 2, 3, 1
_KEY, _DATA, _USERDATA, _VALUE, _COMMENT = 1, 2, 6, 1, 0
_OUR_TABLE = string(_TABLE, TABLE)
_AT_ONCE = 200  # elements in a message; an attribute has room for 64 KB


class NftPortMaps:
    """The maps of ports in the namespace in which it is made."""

    def __init__(self) -> None:
        self._channel = Channel(nl.NETLINK_NETFILTER)

    def change(self, gone: Sequence[PortMap], come: Sequence[PortMap]) -> None:
        """Remove ports, then add ports, in one transaction, all or nothing.

        Errors: OSError, the kernel's first refusal.
        """
        for error in self._send([*_messages(_DELETE, 0, gone), *_messages(_CREATE, nl.NEW, come)]):
            raise error

    def remove_table(self) -> None:
        """Remove the table with all that is in it, whoever made it, if there is one.

        Errors: OSError.
        """
        for error in self._send([(_DELETE_TABLE, 0, _INET + _OUR_TABLE)]):
            if error.errno != errno.ENOENT:
                raise error

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    def _send(self, requests: Sequence[Request]) -> Iterable[OSError]:
        return self._channel.batch([(_BEGIN, 0, _BATCH), *requests], _END_OF_BATCH).values()


def _messages(kind: int, flags: int, ports: Sequence[PortMap]) -> Iterator[Request]:
    groups = defaultdict[str, list[PortMap]](list)
    for port in ports:
        groups[place(port)].append(port)
    for name, group in groups.items():
        path = _INET + _OUR_TABLE + string(_SET, name)
        for start in range(0, len(group), _AT_ONCE):
            elements = b"".join(map(_element, group[start : start + _AT_ONCE]))
            yield kind, flags, path + nest(_ELEMENTS, elements)


def _element(port: PortMap) -> bytes:
    """Encode an element; each field of a key, and of what it leads to, fills four bytes."""
    comment = port.owner.encode() + b"\0"
    key = struct.pack(">B3xH2x", PROTO_NUMBERS[port.proto], port.host_port)
    if port.host_ip != ANY:
        key = port.host_ip.packed + key
    data = port.target.packed + struct.pack(">H2x", port.target_port)
    note = bytes([_COMMENT, len(comment)]) + comment
    ends = nest(_KEY, attribute(_VALUE, key)), nest(_DATA, attribute(_VALUE, data))
    return nest(_ELEMENT, *ends, attribute(_USERDATA, note))
