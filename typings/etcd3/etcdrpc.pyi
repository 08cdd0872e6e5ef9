from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc

class ResponseHeader:
    revision: int

class KeyValue:
    key: bytes
    value: bytes
    mod_revision: int

class RangeRequest:
    def __init__(self, *, key: bytes, range_end: bytes = ...) -> None: ...

class RangeResponse:
    header: ResponseHeader
    kvs: Sequence[KeyValue]

class PutRequest:
    def __init__(self, *, key: bytes, value: bytes, lease: int = ...) -> None: ...

class DeleteRangeRequest:
    def __init__(self, *, key: bytes) -> None: ...

class RequestOp:
    def __init__(
        self, *, request_put: PutRequest = ..., request_delete_range: DeleteRangeRequest = ...
    ) -> None: ...

class Compare:
    EQUAL: int
    MOD: int
    def __init__(self, *, result: int, target: int, key: bytes, mod_revision: int) -> None: ...

class TxnRequest:
    def __init__(self, *, compare: Iterable[Compare], success: Iterable[RequestOp]) -> None: ...

class TxnResponse:
    header: ResponseHeader
    succeeded: bool

class LeaseGrantRequest:
    def __init__(self, *, TTL: int) -> None: ...  # noqa: N803

class LeaseGrantResponse:
    ID: int

class LeaseRevokeRequest:
    def __init__(self, *, ID: int) -> None: ...  # noqa: N803

class AuthenticateRequest:
    def __init__(self, *, name: str, password: str) -> None: ...

class AuthenticateResponse:
    token: str

class Permission:
    permType: int  # noqa: N815
    key: bytes
    range_end: bytes

class AuthRoleAddRequest:
    def __init__(self, *, name: str) -> None: ...

class AuthRoleGrantPermissionRequest:
    perm: Permission
    def __init__(self, *, name: str) -> None: ...

class AuthUserAddRequest:
    def __init__(self, *, name: str, password: str) -> None: ...

class AuthUserGrantRoleRequest:
    def __init__(self, *, user: str, role: str) -> None: ...

class AuthEnableRequest: ...

class WatchCreateRequest:
    def __init__(
        self, *, key: bytes, range_end: bytes, start_revision: int, progress_notify: bool
    ) -> None: ...

class WatchRequest:
    def __init__(self, *, create_request: WatchCreateRequest) -> None: ...

class Event:
    type: int
    kv: KeyValue

class WatchResponse:
    header: ResponseHeader
    watch_id: int
    created: bool
    canceled: bool
    compact_revision: int
    cancel_reason: str
    events: Sequence[Event]

class KVStub:
    Range: grpc.Unary[RangeRequest, RangeResponse]
    Txn: grpc.Unary[TxnRequest, TxnResponse]
    def __init__(self, channel: grpc.Channel) -> None: ...

class LeaseStub:
    LeaseGrant: grpc.Unary[LeaseGrantRequest, LeaseGrantResponse]
    LeaseRevoke: grpc.Unary[LeaseRevokeRequest, Any]
    def __init__(self, channel: grpc.Channel) -> None: ...

class AuthStub:
    Authenticate: grpc.Unary[AuthenticateRequest, AuthenticateResponse]
    RoleAdd: grpc.Unary[AuthRoleAddRequest, object]
    RoleGrantPermission: grpc.Unary[AuthRoleGrantPermissionRequest, object]
    UserAdd: grpc.Unary[AuthUserAddRequest, object]
    UserGrantRole: grpc.Unary[AuthUserGrantRoleRequest, object]
    AuthEnable: grpc.Unary[AuthEnableRequest, object]
    def __init__(self, channel: grpc.Channel) -> None: ...

class WatchCall(Iterator[WatchResponse]):
    def __next__(self) -> WatchResponse: ...
    def cancel(self) -> bool: ...

class WatchStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    def Watch(  # noqa: N802
        self, requests: Iterator[WatchRequest], *, metadata: Sequence[tuple[str, str]]
    ) -> WatchCall: ...
