"""etcd over gRPC: the only user of etcd3, of which it takes the messages and stubs.

etcd3's own client neither renews its token nor knows more than one endpoint, and its watcher
spins when a member is gone. Here each member has a channel of its own, which mends itself; a call
goes to the member that answered last, and to the others in turn when it does not answer.
Imports `etcd_members`, `etcd_settings`, `etcd_faults`, `registry`, `errors`.
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
from driver.flannel.etcd.members import Failure, Member, Metadata, RpcError, ask, failure_of, sum_up
from driver.flannel.etcd.registry import Entry, EventBatch, KeyRange
from driver.flannel.etcd.settings import Endpoint, EtcdSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from etcd3 import etcdrpc

if TYPE_CHECKING:
    import grpc
    from etcd3.etcdrpc import KeyValue, WatchResponse

__all__ = ["Etcd", "EtcdSettings"]

T = TypeVar("T")
A = TypeVar("A")

LIMIT_S = 2.0
DELETED = 1  # an event's type
Attempt = Callable[["grpc.Channel", Metadata, float], T]


class Etcd:
    """etcd's calls, each within a limit. Threads may share it."""

    def __init__(self, settings: EtcdSettings, limit_s: float = LIMIT_S) -> None:
        """Prepare the connections; they are made at the first call."""
        self._settings, self._limit_s = settings, limit_s
        files = CertificateFiles(settings)
        self._members = tuple(Member(e, files) for e in settings.endpoints)
        self._current = self._members[0]
        self._token = ""

    def close(self) -> None:
        """End all connections."""
        for member in self._members:
            member.close()

    # --- calls ---

    def read(self, span: KeyRange) -> tuple[tuple[Entry, ...], int]:
        """Give what is there, in key order, and the store's revision."""
        key, end = _range(span)
        request = etcdrpc.RangeRequest(key=key, range_end=end)
        answer = self._call(lambda channel: etcdrpc.KVStub(channel).Range, request)
        return tuple(_entry(kv) for kv in answer.kvs), answer.header.revision

    def grant(self, ttl_s: int) -> int:
        """Make an etcd lease."""
        request = etcdrpc.LeaseGrantRequest(TTL=ttl_s)
        return self._call(lambda channel: etcdrpc.LeaseStub(channel).LeaseGrant, request).ID

    def revoke(self, lease: int) -> None:
        """End an etcd lease; the keys that hang on it go."""
        request = etcdrpc.LeaseRevokeRequest(ID=lease)
        self._call(lambda channel: etcdrpc.LeaseStub(channel).LeaseRevoke, request)

    def put_if(self, key: str, value: str, revision: int, lease: int = 0) -> int | None:
        """Write a key if its revision is still this one, 0 for a key that is not there."""
        put = etcdrpc.PutRequest(key=key.encode(), value=value.encode(), lease=lease)
        return self._change(key, revision, etcdrpc.RequestOp(request_put=put))

    def delete_if(self, key: str, revision: int) -> bool:
        """Delete a key if its revision is still this one."""
        delete = etcdrpc.DeleteRangeRequest(key=key.encode())
        operation = etcdrpc.RequestOp(request_delete_range=delete)
        return self._change(key, revision, operation) is not None

    def watch(self, starts: Mapping[KeyRange, int]) -> _Feed:
        """Watch spans, each from a revision on; there is no limit to how long.

        Errors: Compacted when etcd cannot tell what happened since.
        """
        feed: _Feed = self._round(
            lambda channel, metadata, limit_s: _Feed(channel, metadata, limit_s, starts)
        )
        return feed

    def _change(self, key: str, revision: int, operation: etcdrpc.RequestOp) -> int | None:
        compare = etcdrpc.Compare
        if revision:
            same = compare(
                result=compare.EQUAL, target=compare.MOD, key=key.encode(), mod_revision=revision
            )
        else:
            same = compare(
                result=compare.EQUAL, target=compare.VERSION, key=key.encode(), version=0
            )
        request = etcdrpc.TxnRequest(compare=[same], success=[operation])
        answer = self._call(lambda channel: etcdrpc.KVStub(channel).Txn, request)
        return answer.header.revision if answer.succeeded else None

    # --- how a call finds a member that answers ---

    def _call(self, method: Callable[[grpc.Channel], grpc.Unary[T, A]], request: T) -> A:
        return self._round(
            lambda channel, metadata, limit_s: ask(method(channel), request, limit_s, metadata)
        )

    def _round(self, attempt: Attempt[T]) -> T:
        """Try one member after the other; each gets its share of the time that is left."""
        end = time.monotonic() + self._limit_s
        faults: list[tuple[Endpoint, Fault]] = []
        for members_left in range(len(self._members), 0, -1):
            member = self._current
            now = time.monotonic()
            try:
                return self._authorised(member, attempt, now + (end - now) / members_left)
            except Failure as failure:
                faults.append((member.endpoint, failure.at(member.endpoint)))
                member.renew()
                if failure.fault.kind in ("refused", "token"):
                    break
                self._leave(member)
        raise sum_up(faults)

    def _leave(self, member: Member) -> None:
        """Turn to the next member, unless another thread has already."""
        if self._current is member:
            index = self._members.index(member) + 1
            self._current = self._members[index % len(self._members)]

    def _authorised(self, member: Member, attempt: Attempt[T], end: float) -> T:
        """Make an attempt, and once more with a new token if etcd does not like the one we have.

        A watch with an old token is told "permission denied".
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
            return ask(method, request, end - time.monotonic(), ()).token
        except Failure as failure:
            if "authentication is not enabled" in failure.fault.reason:
                return ""
            raise


class _Feed:
    """A running watch. A thread of its own collects what comes."""

    def __init__(
        self,
        channel: grpc.Channel,
        metadata: Metadata,
        limit_s: float,
        starts: Mapping[KeyRange, int],
    ) -> None:
        """Begin, and wait until etcd says that it watches."""
        self._answers: SimpleQueue[WatchResponse | Failure] = SimpleQueue()
        self._early: deque[WatchResponse] = deque()
        self._closed = threading.Event()
        self._spans: dict[int, KeyRange] = {}
        stub = etcdrpc.WatchStub(channel)
        # an isolated member shall hang up, so that another is asked
        metadata = (*metadata, ("hasleader", "true"))
        self._call = stub.Watch(self._requests(starts), metadata=metadata)
        threading.Thread(target=self._collect, name="etcd-watch", daemon=True).start()
        end = time.monotonic() + limit_s
        try:
            for span, start in starts.items():
                self._created(span, start, end - time.monotonic())
        except BaseException:
            self.close()
            raise

    def _requests(self, starts: Mapping[KeyRange, int]) -> Iterator[etcdrpc.WatchRequest]:
        for span, start in starts.items():
            key, end = _range(span)
            create = etcdrpc.WatchCreateRequest(
                key=key, range_end=end, start_revision=start, progress_notify=True
            )
            yield etcdrpc.WatchRequest(create_request=create)
        self._closed.wait()  # when the requests end, etcd ends the watch

    def _collect(self) -> None:
        try:
            for answer in self._call:
                self._answers.put(answer)
            self._answers.put(Failure("CANCELLED", "the watch has ended"))
        except RpcError as error:
            self._answers.put(failure_of(error))

    def _created(self, span: KeyRange, start: int, wait_s: float) -> None:
        end = time.monotonic() + wait_s
        while True:
            answer = self._answer(end - time.monotonic())
            if answer is None:
                raise Failure("DEADLINE_EXCEEDED", "")
            if answer.created:
                break
            self._early.append(answer)  # of a span before this one
        if answer.header.revision < start - 1:
            raise Compacted(f"etcd has forgotten revision {start - 1}: its data is not the same")
        self._spans[answer.watch_id] = span

    def next(self, wait_s: float) -> EventBatch | None:
        """Give the next batch, or None when none came in time.

        Errors: Compacted, Unavailable, FlannelError; the feed is then dead.
        """
        try:
            answer = self._early.popleft() if self._early else self._answer(wait_s)
        except Failure as failure:
            raise Unavailable(f"the watch of etcd has ended: {failure.fault.reason}") from None
        if answer is None:
            return None
        events = tuple(_entry(e.kv, gone=e.type == DELETED) for e in answer.events)
        revision = events[-1].revision if events else answer.header.revision
        return EventBatch(self._spans[answer.watch_id], revision, events)

    def _answer(self, wait_s: float) -> WatchResponse | None:
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


def _range(span: KeyRange) -> tuple[bytes, bytes]:
    """Give a span as etcd has it: its first key, and the first key behind it or b"" for one key."""
    key = span.key.encode()
    return key, key[:-1] + bytes([key[-1] + 1]) if span.prefix else b""


def _entry(kv: KeyValue, *, gone: bool = False) -> Entry:
    key = kv.key.decode("utf-8", "backslashreplace")  # only for a message: no key of ours
    return Entry(key, None if gone else kv.value, kv.mod_revision)
