"""Failures the plugin can name. `str(error)` is the sentence a Docker user reads.

Imports nothing of ours. Each class carries the HTTP status its answer gets; none is 404, which
dockerd takes for "method not implemented".
"""

from __future__ import annotations

from ipaddress import IPv4Address

Place = tuple[str, IPv4Address, int]  # a host port: protocol, address, number


class FlannelError(Exception):
    """A failure with a message made for the user: what, which value, what is allowed."""

    status = 500
    exit_status = 1  # of the command that it ends


class BadRequest(FlannelError):
    """The request cannot be meant: malformed body, bad CIDR, an option we do not have."""

    status = 400


class UnknownObject(FlannelError):
    """The request names a network, endpoint or pool we do not hold."""

    status = 400


class Conflict(FlannelError):
    """Somebody else has it: an address, a block, host ports (`taken`)."""

    status = 409

    def __init__(self, message: str, *taken: Place) -> None:
        super().__init__(message)
        self.taken = taken


class Exhausted(FlannelError):
    """Nothing left to give: addresses of a pool, blocks of the lease."""

    status = 409


class Unavailable(FlannelError):
    """Cannot be answered now, may be later: no lease yet."""

    status = 503


class NoLease(Unavailable):
    """There is no lease to give anything of; the lease's source may know better words for why."""


class HostError(FlannelError):
    """The host refused a change: kernel, firewall."""


class StoreError(FlannelError):
    """The state on disk cannot be read or written."""


class BadRecord(FlannelError):
    """What somebody else wrote into etcd cannot be read; it never stops the others."""


class Compacted(FlannelError):
    """etcd cannot tell what happened since a revision; only what there is now."""
