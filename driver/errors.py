"""The failures that the plugin reports. A Docker user reads `str(error)`.

Each class has the HTTP status of the answer; none is 404, which dockerd takes for "method not
implemented".
"""

from __future__ import annotations

from ipaddress import IPv4Address

# Docker repeats a call whose connection broke, without its body; nothing else sends none
NO_BODY = "the request has no body"
Place = tuple[str, IPv4Address, int]  # a host port: protocol, address, number


class FlannelError(Exception):
    """A failure with a message for the user: what is wrong, with which value, what is allowed."""

    status = 500
    exit_status = 1  # of the command that it ends


class BadRequest(FlannelError):
    """The request is invalid: malformed body, bad CIDR, unknown option."""

    status = 400


class UnknownObject(FlannelError):
    """The request names a network, endpoint or pool that the plugin does not know."""

    status = 400


class Conflict(FlannelError):
    """Somebody else has what is asked for: an address, a block, host ports (`taken`)."""

    status = 409

    def __init__(self, message: str, *taken: Place) -> None:
        super().__init__(message)
        self.taken = taken


class Exhausted(FlannelError):
    """No address of the pool, block of the lease or host port is left."""

    status = 409


class Unavailable(FlannelError):
    """It does not work now, but may later."""

    status = 503


class NoLease(Unavailable):
    """There is no lease; its source may know why."""


class HostError(FlannelError):
    """The host refused a change: kernel or firewall."""


class StoreError(FlannelError):
    """The state on disk cannot be read or written."""


class BadRecord(FlannelError):
    """A value that somebody else wrote into etcd is invalid; other values are still read."""


class Compacted(FlannelError):
    """etcd no longer has the events since a revision, only the current values."""
