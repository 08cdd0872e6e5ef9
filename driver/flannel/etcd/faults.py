"""What an answer of gRPC that is none means, in words for a user. No I/O.

gRPC and etcd tell most failures apart only by their text. Imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_QUOTED = 160


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and whose fault it is.

    "token": a new one may help. "member": another member may do better. "tls": so it may, but the
    settings are to be looked at. "refused": etcd has answered, and the answer is no.
    """

    kind: Literal["token", "member", "tls", "refused"]
    reason: str


# TLS 1.3 tells us only by hanging up: the client is done before the server has looked.
UNKNOWN_CLIENT = Fault("tls", "TLS: it refuses our client certificate, or that we have none")

# In this order: the first text that occurs counts.
KNOWN: tuple[tuple[str, Fault], ...] = (
    ("invalid auth token", Fault("token", "it knows our token no more")),
    ("revision of auth store is old", Fault("token", "it knows our token no more")),
    ("user name is empty", Fault("refused", "it wants a user name and a password")),
    ("invalid user id or password", Fault("refused", "wrong user name or password")),
    ("authentication failed", Fault("refused", "wrong user name or password")),
    ("permission denied", Fault("refused", "permission denied")),
    ("certificate_verify_failed", Fault("tls", "TLS: its certificate is not signed by our CA")),
    ("hostname verification", Fault("tls", "TLS: its certificate is for another name")),
    ("peer name", Fault("tls", "TLS: its certificate is for another name")),
    ("wrong_version_number", Fault("tls", "TLS: it does not speak TLS; is it an http endpoint?")),
    ("tsi_data_corrupted", UNKNOWN_CLIENT),
    ("handshake read failed", Fault("tls", "TLS: it hangs up; is it an http endpoint?")),
    ("handshake", Fault("tls", "TLS: no handshake")),
    ("connection refused", Fault("member", "connection refused")),
    ("http/2", Fault("member", "this is no etcd")),
    ("timed out", Fault("member", "no answer in time")),
    ("no leader", Fault("member", "it has no leader")),
    ("lookup failed", Fault("member", "its name is not known")),
)
# what a member that speaks TLS does when it is spoken to without
HANGS_UP = Fault("member", "it hangs up; is it an https endpoint?")
HUNG_UP = ("socket closed", "connection reset")


def explain(code: str, details: str, *, tls: bool | None = None) -> Fault:
    """Find out what a failure means; `code` is the name of a gRPC status.

    `tls`: whether the member is spoken to by TLS, where that is known.
    """
    if code == "DEADLINE_EXCEEDED":
        return Fault("member", "no answer in time")
    if code == "UNIMPLEMENTED":
        return Fault("member", "this is no etcd")
    text = details.lower()
    for needle, fault in KNOWN:
        if needle in text and not (tls is False and fault.kind == "tls"):
            return fault
    if tls is False and "failed to connect" in text and any(words in text for words in HUNG_UP):
        return HANGS_UP
    return Fault("member", (details or code)[:MOST_QUOTED])
