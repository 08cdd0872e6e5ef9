"""Asks each member of etcd: whether it answers, whether it lets us read, and its clock."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from driver.errors import BadRecord, FlannelError
from driver.flannel.etcd.registry import KeyRange, Registry
from driver.flannel.etcd.settings import Endpoint, EtcdSettings
from driver.flannel.network_config import read_config
from driver.flannel.records import config_key
from driver.model.records import Overlay

LIMIT_S = 3.0


@dataclass(frozen=True, slots=True)
class MemberLook:
    """What a member answered. `fault`: why it or its config cannot be used, "" if it can.

    `ahead_s`: how far its clock is ahead of this host's, in seconds; None if it was not told.
    `overlay`: the network config; None if there is none.
    """

    endpoint: Endpoint
    fault: str = ""
    ahead_s: float | None = None
    overlay: Overlay | None = None


def look(
    settings: EtcdSettings, connect: Callable[[EtcdSettings], Registry]
) -> Iterator[MemberLook]:
    """Ask each member alone; each takes a few seconds at most."""
    for endpoint in settings.endpoints:
        ahead, reason = _clock(endpoint, settings)
        overlay = None
        try:
            registry = connect(replace(settings, endpoints=(endpoint,)))
            entries, _ = registry.read(KeyRange(config_key(settings.prefix)))
            if entries and entries[0].value is not None:
                overlay = read_config(entries[0].value)
            yield MemberLook(endpoint, "", ahead, overlay)
        except BadRecord as error:
            yield MemberLook(endpoint, f"{config_key(settings.prefix)} in etcd: {error}", ahead)
        except FlannelError as error:
            yield MemberLook(endpoint, f"{error} {reason}".strip(), ahead)


def _clock(endpoint: Endpoint, settings: EtcdSettings) -> tuple[float | None, str]:
    """Return how far a member's clock is ahead, and what TLS finds wrong with its certificate."""
    try:
        if endpoint.tls:
            context = ssl.create_default_context(cafile=settings.cafile)
            if settings.certfile and settings.keyfile:
                context.load_cert_chain(settings.certfile, settings.keyfile, lambda: "")
            made: HTTPConnection = HTTPSConnection(
                endpoint.host, endpoint.port, timeout=LIMIT_S, context=context
            )
        else:
            made = HTTPConnection(endpoint.host, endpoint.port, timeout=LIMIT_S)
        made.request("GET", "/version")
        date = made.getresponse().headers["Date"]
        made.close()
        return parsedate_to_datetime(date).timestamp() - time.time(), ""
    except ssl.SSLCertVerificationError as error:
        return None, f"({error.verify_message})"
    except (OSError, ValueError, TypeError, HTTPException):
        return None, ""  # the other try says why
