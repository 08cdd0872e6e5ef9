"""Deletes flows that the kernel tracks.

One message deletes all that match, in 0.1 ms and 0.3 more for every thousand flows. Kernels before
6.8 refuse it, since they want a whole flow: there, and where many ports change at once, all flows
are listed and those that match are deleted one by one.
Source: net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from driver.host.netlink import constants as nl
from driver.host.netlink.channel import Channel, Request
from driver.host.netlink.decoder import attributes
from driver.host.netlink.encoder import attribute, ipv4, nest, u32
from driver.model.firewall import Flows
from driver.model.records import PROTO_NUMBERS

log = logging.getLogger(__name__)

_BODY = nl.NFGENMSG.pack(socket.AF_INET, 0, 0)
_MANY = 64  # from here on listing all flows, some 10 ms, is cheaper
_UNABLE = (errno.EINVAL, errno.EOPNOTSUPP)


class Conntrack:
    """The tracked flows of the namespace in which it is made."""

    def __init__(self, channel: Channel | None = None) -> None:
        self._channel = channel or Channel(nl.NETLINK_NETFILTER)
        self._filters = True
        self._logged = ""

    def forget(self, wrong: Sequence[Flows]) -> None:
        """Delete flows. A failure is only logged: they end by themselves."""
        try:
            if not (self._filters and len(wrong) < _MANY and self._by_filter(wrong)):
                self._one_by_one(wrong)
        except OSError as error:
            if str(error) != self._logged:  # once, not at every change of ports
                log.warning("the kernel's flow tracking refused: %s; old flows go on", error)
            self._logged = str(error)

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    def _by_filter(self, wrong: Iterable[Flows]) -> bool:
        """Delete in the kernel; return whether it can.

        A kernel that cannot takes the message for one about a single flow, since it has a tuple,
        and refuses it as incomplete: it never deletes more than was asked for.
        """
        refused = self._channel.batch(
            [(nl.IPCTNL_MSG_CT_DELETE, 0, deletion(flows)) for flows in wrong]
        )
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
            by_port[PROTO_NUMBERS[flows.proto], flows.port].append(flows)
        requests: list[Request] = []
        for message in self._channel.dump(nl.IPCTNL_MSG_CT_GET, _BODY):
            flow = _read(message)
            if any(_matches(flow, flows) for flows in by_port.get(flow.to, ())):
                requests.append((nl.IPCTNL_MSG_CT_DELETE, 0, _BODY + flow.identity))
        for error in self._channel.batch(requests).values():
            if error.errno != errno.ENOENT:
                raise error


class _Flow(NamedTuple):
    """A flow as the kernel lists it: `to` is protocol and port; addresses are packed."""

    to: tuple[int, int]
    destination: bytes
    answered_by: bytes
    status: int
    identity: bytes


def deletion(flows: Flows) -> bytes:
    """Encode a message that deletes all of some flows."""
    looks = nl.CTA_FILTER_PROTO_NUM | nl.CTA_FILTER_PROTO_DST_PORT
    number = attribute(nl.CTA_PROTO_NUM, bytes([PROTO_NUMBERS[flows.proto]]))
    port = attribute(nl.CTA_PROTO_DST_PORT, flows.port.to_bytes(2, "big"))
    to = [nest(nl.CTA_TUPLE_PROTO, number, port)]
    if flows.ip is not None:
        to.insert(0, nest(nl.CTA_TUPLE_IP, ipv4(nl.CTA_IP_V4_DST, flows.ip)))
        looks |= nl.CTA_FILTER_IP_DST
    request = _BODY + nest(nl.CTA_TUPLE_ORIG, *to)
    filters = u32(nl.CTA_FILTER_ORIG_FLAGS, looks)
    if flows.target is not None:
        source = nest(nl.CTA_TUPLE_IP, ipv4(nl.CTA_IP_V4_SRC, flows.target))
        request += nest(nl.CTA_TUPLE_REPLY, source)
        filters += u32(nl.CTA_FILTER_REPLY_FLAGS, nl.CTA_FILTER_IP_SRC)
    if flows.without:
        request += attribute(nl.CTA_STATUS, bytes(4))
        request += attribute(nl.CTA_STATUS_MASK, flows.without.to_bytes(4, "big"))
    return request + nest(nl.CTA_FILTER, filters)


def _read(message: bytes) -> _Flow:
    """Decode one flow of a list."""
    found = attributes(message, len(_BODY))
    original = attributes(found[nl.CTA_TUPLE_ORIG])
    reply = attributes(found[nl.CTA_TUPLE_REPLY])
    proto = attributes(original[nl.CTA_TUPLE_PROTO])
    identity = nest(nl.CTA_TUPLE_ORIG, found[nl.CTA_TUPLE_ORIG])
    for kind in (nl.CTA_ID, nl.CTA_ZONE):
        if kind in found:
            identity += attribute(kind, found[kind])
    return _Flow(
        to=(
            proto[nl.CTA_PROTO_NUM][0],
            int.from_bytes(proto.get(nl.CTA_PROTO_DST_PORT, b""), "big"),
        ),
        destination=attributes(original[nl.CTA_TUPLE_IP])[nl.CTA_IP_V4_DST],
        answered_by=attributes(reply[nl.CTA_TUPLE_IP])[nl.CTA_IP_V4_SRC],
        status=int.from_bytes(found[nl.CTA_STATUS], "big"),
        identity=identity,
    )


def _matches(flow: _Flow, flows: Flows) -> bool:
    return (
        (flows.ip is None or flows.ip.packed == flow.destination)
        and (flows.target is None or flows.target.packed == flow.answered_by)
        and not flow.status & flows.without
    )
