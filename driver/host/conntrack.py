"""Makes the kernel forget flows that it tracks. Imports `events` and `flows`.

One message deletes all that match, in the kernel, at 0.1 ms and 0.3 more for every thousand
flows. Kernels before 6.8 want a whole flow in such a message and refuse: there the list of all
is read and each is deleted alone, as it also is where many ports change at once.
Source: linux/netfilter/{nfnetlink,nfnetlink_conntrack}.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from driver.core.flows import Flows
from driver.host.netlink.channel import DUMP, NETFILTER, Channel, Request, attribute, attributes

log = logging.getLogger(__name__)

GET, DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_BODY = struct.pack("=16xBxH", socket.AF_INET, 0)  # header, family, version, no resource
_ORIGINAL, _REPLY, _STATUS, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 18, 25, 26
_IP, _PROTO = 1, 2  # in a tuple
_SOURCE, _DESTINATION = 1, 2  # in an IP
_NUMBER, _TO_PORT = 1, 3  # in a protocol
_NESTED = 0x8000
_BY_SOURCE, _BY_DESTINATION, _BY_PROTO, _BY_PORT = 1, 2, 1 << 3, 1 << 5  # what a filter looks at
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_MANY = 64  # from here on a list of all, at some 10 ms, is cheaper
_UNABLE = (errno.EINVAL, errno.EOPNOTSUPP)


class Conntrack:
    """The tracked flows of the namespace in which it is made."""

    def __init__(self, channel: Channel | None = None) -> None:
        self._channel = channel or Channel(NETFILTER)
        self._filters = True
        self._told = ""

    def forget(self, wrong: Sequence[Flows]) -> None:
        """Delete flows. A failure is told, and is none of the caller's: they end by themselves."""
        try:
            if not (self._filters and len(wrong) < _MANY and self._by_filter(wrong)):
                self._one_by_one(wrong)
        except OSError as error:
            if str(error) != self._told:  # it is the same at every change of ports
                log.warning("the kernel's flow tracking refused: %s; old flows go on", error)
            self._told = str(error)

    def close(self) -> None:
        """Give the socket back."""
        self._channel.close()

    def _by_filter(self, wrong: Iterable[Flows]) -> bool:
        """Delete in the kernel; tell whether it can.

        A kernel that cannot takes the message for one about a single flow, for it has a tuple,
        and refuses that as incomplete: it never deletes more than was asked for.
        """
        refused = self._channel.tell([(DELETE, 0, _filter(flows)) for flows in wrong])
        for error in refused.values():
            if error.errno not in _UNABLE:
                raise error
        if refused:
            self._filters = False
            log.info("this kernel deletes no flows by filter (6.8 and later do): listing them")
        return not refused

    def _one_by_one(self, wrong: Iterable[Flows]) -> None:
        by_port = defaultdict(list)
        for flows in wrong:
            by_port[_PROTOCOLS[flows.proto], flows.port].append(flows)
        requests: list[Request] = []
        for message in self._channel.ask(GET, _BODY, DUMP):
            flow = _read(message)
            if any(_matches(flow, flows) for flows in by_port.get(flow.to, ())):
                requests.append((DELETE, 0, _BODY + flow.identity))
        for error in self._channel.tell(requests).values():
            if error.errno != errno.ENOENT:
                raise error


class _Flow(NamedTuple):
    """A flow as the kernel lists it: `to` is protocol and port; addresses are packed."""

    to: tuple[int, int]
    destination: bytes
    answered_by: bytes
    status: int
    identity: bytes


def _filter(flows: Flows) -> bytes:
    """Encode a message that deletes all of some flows."""
    ip, looks = b"", _BY_PROTO | _BY_PORT
    if flows.ip is not None:
        ip, looks = _nest(_IP, attribute(_DESTINATION, flows.ip.packed)), looks | _BY_DESTINATION
    number = attribute(_NUMBER, bytes([_PROTOCOLS[flows.proto]]))
    to = attribute(_TO_PORT, flows.port.to_bytes(2, "big"))
    request = _BODY + _nest(_ORIGINAL, ip + _nest(_PROTO, number + to))
    filters = attribute(1, struct.pack("=I", looks))
    if flows.target is not None:
        source = attribute(_SOURCE, flows.target.packed)
        request += _nest(_REPLY, _nest(_IP, source))
        filters += attribute(2, struct.pack("=I", _BY_SOURCE))
    if flows.without:
        request += attribute(_STATUS, bytes(4))
        request += attribute(_STATUS_MASK, flows.without.to_bytes(4, "big"))
    return request + _nest(_FILTER, filters)


def _nest(kind: int, payload: bytes) -> bytes:
    return attribute(kind | _NESTED, payload)


def _read(message: bytes) -> _Flow:
    """Decode one flow of a list."""
    found = attributes(message, len(_BODY))
    original = attributes(found[_ORIGINAL])
    proto = attributes(original[_PROTO])
    identity = _nest(_ORIGINAL, found[_ORIGINAL])
    for kind in (_ID, _ZONE):
        if kind in found:
            identity += attribute(kind, found[kind])
    return _Flow(
        to=(proto[_NUMBER][0], int.from_bytes(proto.get(_TO_PORT, b""), "big")),
        destination=attributes(original[_IP])[_DESTINATION],
        answered_by=attributes(attributes(found[_REPLY])[_IP])[_SOURCE],
        status=int.from_bytes(found[_STATUS], "big"),
        identity=identity,
    )


def _matches(flow: _Flow, flows: Flows) -> bool:
    return (
        (flows.ip is None or flows.ip.packed == flow.destination)
        and (flows.target is None or flows.target.packed == flow.answered_by)
        and not flow.status & flows.without
    )
