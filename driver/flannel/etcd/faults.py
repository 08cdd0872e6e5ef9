"""Explain gRPC failures to users. Pure.

gRPC and etcd tell most failures apart only by their text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_QUOTED = 160


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, for a user, and what may help.

    "token": a new token. "member": another member. "tls": another member, or other settings.
    "refused": nothing; etcd has answered with a refusal.
    """

    kind: Literal["token", "member", "tls", "refused"]
    reason: str


# With TLS 1.3 the server only hangs up: it checks us after the client has finished the handshake.
UNKNOWN_CLIENT = Fault("tls", "TLS: it refuses our client certificate, or wants one")

# The first text that occurs counts.
KNOWN: tuple[tuple[str, Fault], ...] = (
    ("invalid auth token", Fault("token", "it no longer knows our token")),
    ("revision of auth store is old", Fault("token", "it no longer knows our token")),
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
    ("handshake", Fault("tls", "TLS: the handshake failed")),
    ("connection refused", Fault("member", "connection refused")),
    ("http/2", Fault("member", "this is not etcd")),
    ("timed out", Fault("member", "no answer in time")),
    ("no leader", Fault("member", "it has no leader")),
    ("lookup failed", Fault("member", "its name is unknown")),
)
# what a member with TLS does on a connection without it
HANGS_UP = Fault("member", "it hangs up; is it an https endpoint?")
HUNG_UP = ("socket closed", "connection reset")


def explain(code: str, details: str, *, tls: bool | None = None) -> Fault:
    """Return what a failure means. `code`: a gRPC status; `tls`: None if it is unknown."""
    if code == "DEADLINE_EXCEEDED":
        return Fault("member", "no answer in time")
    if code == "UNIMPLEMENTED":
        return Fault("member", "this is not etcd")
    text = details.lower()
    for needle, fault in KNOWN:
        if needle in text and not (tls is False and fault.kind == "tls"):
            return fault
    if tls is False and "failed to connect" in text and any(words in text for words in HUNG_UP):
        return HANGS_UP
    return Fault("member", (details or code)[:MOST_QUOTED])
