"""The members of etcd: a gRPC channel to each, calls on it, and their failures."""

from __future__ import annotations

import os
import threading
from typing import TypeVar

from driver.errors import FlannelError, Unavailable
from driver.flannel.etcd.certificates import CertificateFiles, Certificates
from driver.flannel.etcd.faults import Fault, explain
from driver.flannel.etcd.settings import Endpoint

# This must precede the imports of gRPC and etcd3. etcd3's messages need protobuf's Python variant;
# and gRPC would log each connection that fails.
os.environ.update(PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python", GRPC_VERBOSITY="NONE")
import grpc

RpcError = grpc.RpcError
Q = TypeVar("Q")
A = TypeVar("A")
Metadata = tuple[tuple[str, str], ...]

OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # one answer holds thousands of leases
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # also the limit for making a connection
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 6000),  # etcd hangs up if pings come less than 5 s apart
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),  # its default, 60 s, would override the line above
    ("grpc.http2.max_pings_without_data", 0),
)


class Failure(Exception):
    """A call on one member failed, with this gRPC status and text."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(code)
        self._code, self._details = code, details
        self.fault = explain(code, details)

    def at(self, endpoint: Endpoint) -> Fault:
        """Return what it means for the member at an endpoint."""
        return explain(self._code, self._details, tls=endpoint.tls)


class Member:
    """One member. Its channel connects at the first call, and reconnects. Threads may share it."""

    def __init__(self, endpoint: Endpoint, files: CertificateFiles) -> None:
        """Read no certificates yet: they may come later."""
        self.endpoint, self._files = endpoint, files
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._certificates: Certificates | None = None

    @property
    def channel(self) -> grpc.Channel:
        """The channel. Errors: Unavailable if a certificate file cannot be used."""
        with self._lock:
            if self._channel is None:
                self._channel = self._open()
            return self._channel

    def close_if_outdated(self) -> None:
        """Close the channel if the certificates have changed since. Errors: as `channel`."""
        if self.endpoint.tls and self._files.current() != self._certificates:
            self.close()

    def close(self) -> None:
        """Close the channel; the next call opens another."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
            self._channel = None

    def _open(self) -> grpc.Channel:
        host, port = self.endpoint.host, self.endpoint.port
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if not self.endpoint.tls:
            return grpc.insecure_channel(target, OPTIONS)
        found = self._certificates = self._files.current()
        credentials = grpc.ssl_channel_credentials(found.authority, found.key, found.own)
        return grpc.secure_channel(target, credentials, OPTIONS)


def call(method: grpc.Unary[Q, A], request: Q, limit_s: float, metadata: Metadata) -> A:
    """Return a member's answer. Errors: Failure."""
    try:
        return method(request, timeout=max(0.0, limit_s), metadata=metadata)
    except grpc.RpcError as error:
        raise failure_of(error) from None


def failure_of(error: grpc.RpcError) -> Failure:
    """Return what gRPC says of a failed call."""
    return Failure(error.code().name, error.details() or "")


def sum_up(faults: list[tuple[Endpoint, Fault]]) -> FlannelError:
    """Return an error that says what was wrong with each member."""
    text = "; ".join(f"{endpoint}: {fault.reason}" for endpoint, fault in faults)
    if faults[-1][1].kind in ("refused", "token"):
        return FlannelError(f"etcd refuses: {text}")
    if any(fault.kind == "tls" for _, fault in faults):
        return FlannelError(f"etcd cannot be used: {text}")
    return Unavailable(f"etcd cannot be reached: {text}")
