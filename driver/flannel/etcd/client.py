"""The etcd client: `registry.Registry` over gRPC, with etcd3's messages and stubs.

etcd3's own client neither renews its token nor knows more than one endpoint, and its watcher spins
when a member is gone. Here each member has its own channel, which reconnects; a call goes to the
member that answered last, and if that fails to the others in turn.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from driver.errors import Compacted, Unavailable
from driver.flannel.etcd.certificates import CertificateFiles
from driver.flannel.etcd.faults import Fault
from driver.flannel.etcd.members import (
    Failure,
    Member,
    Metadata,
    RpcError,
    call,
    failure_of,
    sum_up,
)
from driver.flannel.etcd.registry import Entry, EventBatch, KeyRange
from driver.flannel.etcd.settings import Endpoint, EtcdSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from etcd3 import etcdrpc

if TYPE_CHECKING:
    import grpc
    from etcd3.etcdrpc import KeyValue, WatchResponse

__all__ = ["Etcd", "EtcdSettings", "etcdrpc"]

T = TypeVar("T")
A = TypeVar("A")

LIMIT_S = 2.0
DELETED = 1  # the type of an event
Attempt = Callable[["grpc.Channel", Metadata, float], T]


class Etcd:
    """etcd. Each call ends within `limit_s`. Threads may share it."""

    def __init__(self, settings: EtcdSettings, limit_s: float = LIMIT_S) -> None:
        """Connect to nothing yet: the first call does."""
        self._settings, self._limit_s = settings, limit_s
        files = CertificateFiles(settings)
        self._members = tuple(Member(e, files) for e in settings.endpoints)
        self._current = self._members[0]
        self._token = ""

    def close(self) -> None:
        """Close all connections."""
        for member in self._members:
            member.close()

    # --- calls ---

    def read(self, keys: KeyRange) -> tuple[tuple[Entry, ...], int]:
        """Return the entries of a range in key order, and the store's revision."""
        key, end = _range(keys)
        request = etcdrpc.RangeRequest(key=key, range_end=end)
        answer = self._call(lambda channel: etcdrpc.KVStub(channel).Range, request)
        return tuple(_entry(kv) for kv in answer.kvs), answer.header.revision

    def grant(self, ttl_s: int) -> int:
        """Return the id of a new etcd lease."""
        request = etcdrpc.LeaseGrantRequest(TTL=ttl_s)
        return self._call(lambda channel: etcdrpc.LeaseStub(channel).LeaseGrant, request).ID

    def revoke(self, lease: int) -> None:
        """End an etcd lease and delete the keys attached to it."""
        request = etcdrpc.LeaseRevokeRequest(ID=lease)
        self._call(lambda channel: etcdrpc.LeaseStub(channel).LeaseRevoke, request)

    def put_if(self, key: str, value: str, revision: int, lease: int = 0) -> int | None:
        """Write a key if it still has this revision; 0: if it does not exist."""
        put = etcdrpc.PutRequest(key=key.encode(), value=value.encode(), lease=lease)
        return self._change(key, revision, etcdrpc.RequestOp(request_put=put))

    def delete_if(self, key: str, revision: int) -> bool:
        """Delete a key if it still has this revision; return whether it had."""
        delete = etcdrpc.DeleteRangeRequest(key=key.encode())
        operation = etcdrpc.RequestOp(request_delete_range=delete)
        return self._change(key, revision, operation) is not None

    def watch(self, starts: Mapping[KeyRange, int]) -> _Watch:
        """Watch ranges, each from a revision on, without a time limit.

        Errors: Compacted if etcd no longer has that revision.
        """
        watch: _Watch = self._try_members(
            lambda channel, metadata, limit_s: _Watch(channel, metadata, limit_s, starts)
        )
        return watch

    def _change(self, key: str, revision: int, operation: etcdrpc.RequestOp) -> int | None:
        compare = etcdrpc.Compare
        same = compare(  # a key that does not exist has the revision 0
            result=compare.EQUAL, target=compare.MOD, key=key.encode(), mod_revision=revision
        )
        request = etcdrpc.TxnRequest(compare=[same], success=[operation])
        answer = self._call(lambda channel: etcdrpc.KVStub(channel).Txn, request)
        return answer.header.revision if answer.succeeded else None

    # --- finding a member that answers ---

    def _call(self, method: Callable[[grpc.Channel], grpc.Unary[T, A]], request: T) -> A:
        return self._try_members(
            lambda channel, metadata, limit_s: call(method(channel), request, limit_s, metadata)
        )

    def _try_members(self, attempt: Attempt[T]) -> T:
        """Try one member after the other; each may take its share of the time left."""
        end = time.monotonic() + self._limit_s
        faults: list[tuple[Endpoint, Fault]] = []
        for members_left in range(len(self._members), 0, -1):
            member = self._current
            now = time.monotonic()
            try:
                return self._with_token(member, attempt, now + (end - now) / members_left)
            except Failure as failure:
                faults.append((member.endpoint, failure.at(member.endpoint)))
                member.close_if_outdated()
                if failure.fault.kind in ("refused", "token"):
                    break
                self._switch_from(member)
        raise sum_up(faults)

    def _switch_from(self, member: Member) -> None:
        """Use the next member, unless another thread has switched already."""
        if self._current is member:
            index = self._members.index(member) + 1
            self._current = self._members[index % len(self._members)]

    def _with_token(self, member: Member, attempt: Attempt[T], end: float) -> T:
        """Make an attempt, and a second one with a new token if etcd refuses the one we have.

        etcd answers a watch with an old token "permission denied".
        """
        old = self._token
        try:
            return self._attempt(member, attempt, end)
        except Failure as failure:
            kind, reason = failure.fault.kind, failure.fault.reason
            if not old or not (kind == "token" or reason == "permission denied"):
                raise
        self._token = ""
        return self._attempt(member, attempt, end)

    def _attempt(self, member: Member, attempt: Attempt[T], end: float) -> T:
        if self._settings.username and not self._token:
            self._token = self._authenticate(member, end)
        metadata = (("token", self._token),) if self._token else ()
        return attempt(member.channel, metadata, end - time.monotonic())

    def _authenticate(self, member: Member, end: float) -> str:
        request = etcdrpc.AuthenticateRequest(
            name=self._settings.username, password=self._settings.password
        )
        method = etcdrpc.AuthStub(member.channel).Authenticate
        try:
            return call(method, request, end - time.monotonic(), ()).token
        except Failure as failure:
            if "authentication is not enabled" in failure.fault.reason:
                return ""
            raise


class _Watch:
    """A running watch. Its own thread receives the answers."""

    def __init__(
        self,
        channel: grpc.Channel,
        metadata: Metadata,
        limit_s: float,
        starts: Mapping[KeyRange, int],
    ) -> None:
        """Begin, and wait until etcd confirms every range."""
        self._answers: SimpleQueue[WatchResponse | Failure] = SimpleQueue()
        self._early: deque[WatchResponse] = deque()
        self._closed = threading.Event()
        self._ranges: dict[int, KeyRange] = {}
        stub = etcdrpc.WatchStub(channel)
        # an isolated member hangs up, so that another can be used
        metadata = (*metadata, ("hasleader", "true"))
        self._call = stub.Watch(self._requests(starts), metadata=metadata)
        threading.Thread(target=self._collect, name="etcd-watch", daemon=True).start()
        end = time.monotonic() + limit_s
        try:
            for keys, start in starts.items():
                self._await_created(keys, start, end)
        except BaseException:
            self.close()
            raise

    def _requests(self, starts: Mapping[KeyRange, int]) -> Iterator[etcdrpc.WatchRequest]:
        for keys, start in starts.items():
            key, end = _range(keys)
            create = etcdrpc.WatchCreateRequest(
                key=key, range_end=end, start_revision=start, progress_notify=True
            )
            yield etcdrpc.WatchRequest(create_request=create)
        self._closed.wait()  # etcd ends the watch when the requests end

    def _collect(self) -> None:
        try:
            for answer in self._call:
                self._answers.put(answer)
            self._answers.put(Failure("CANCELLED", "the watch has ended"))
        except RpcError as error:
            self._answers.put(failure_of(error))

    def _await_created(self, keys: KeyRange, start: int, end: float) -> None:
        while True:
            answer = self._receive(end - time.monotonic())
            if answer is None:
                raise Failure("DEADLINE_EXCEEDED", "")
            if answer.created:
                break
            self._early.append(answer)  # of an earlier range
        if answer.header.revision < start - 1:
            raise Compacted(f"etcd has forgotten revision {start - 1}: its data is not the same")
        self._ranges[answer.watch_id] = keys

    def next(self, wait_s: float) -> EventBatch | None:
        """Return the next batch, or None if none came in time. Errors: as of `registry.Watch`."""
        try:
            answer = self._early.popleft() if self._early else self._receive(wait_s)
        except Failure as failure:
            raise Unavailable(f"the watch of etcd has ended: {failure.fault.reason}") from None
        if answer is None:
            return None
        events = tuple(_entry(e.kv, gone=e.type == DELETED) for e in answer.events)
        revision = events[-1].revision if events else answer.header.revision
        return EventBatch(self._ranges[answer.watch_id], revision, events)

    def _receive(self, wait_s: float) -> WatchResponse | None:
        try:
            answer = self._answers.get(timeout=max(0.0, wait_s))
        except Empty:
            return None
        if isinstance(answer, Failure):
            raise answer
        if answer.compact_revision:
            raise Compacted(f"etcd has compacted its history up to {answer.compact_revision}")
        if answer.canceled:
            raise Failure("CANCELLED", answer.cancel_reason)
        return answer

    def close(self) -> None:
        """End the watch."""
        self._closed.set()
        self._call.cancel()


def _range(keys: KeyRange) -> tuple[bytes, bytes]:
    """Return the first key of a range and the key behind its last, b"" for one key, as in etcd."""
    key = keys.key.encode()
    return key, key[:-1] + bytes([key[-1] + 1]) if keys.prefix else b""


def _entry(kv: KeyValue, *, gone: bool = False) -> Entry:
    key = kv.key.decode("utf-8", "backslashreplace")  # such a key is only quoted in messages
    return Entry(key, None if gone else kv.value, kv.mod_revision)
