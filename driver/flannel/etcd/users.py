"""Limits who may do what in etcd: one user for the hosts, below one prefix, and `root`.

Users are known by the common names of their certificates: their passwords are forgotten at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeVar

import grpc

from driver.errors import FlannelError
from driver.flannel.etcd.client import Etcd, etcdrpc

ROOT = "root"
HOSTS = "flannel"
READ_AND_WRITE = 2
THERE = "already exists"  # in etcd's answer

Q = TypeVar("Q")


class Administrator(Etcd):
    """etcd, by the certificate of `root`."""

    def limit_to(self, prefix: str) -> None:
        """Let `HOSTS` read and write below a prefix only, `root` all, and nobody else anything.

        Repeating it is harmless. Errors: FlannelError.
        """
        stub = etcdrpc.AuthStub
        for user in (ROOT, HOSTS):
            self._unless_there(lambda c: stub(c).RoleAdd, etcdrpc.AuthRoleAddRequest(name=user))
        grant = etcdrpc.AuthRoleGrantPermissionRequest(name=HOSTS)
        grant.perm.permType = READ_AND_WRITE
        grant.perm.key, grant.perm.range_end = f"{prefix}/".encode(), f"{prefix}0".encode()
        self._call(lambda c: stub(c).RoleGrantPermission, grant)
        for user in (ROOT, HOSTS):
            forgotten = secrets.token_urlsafe(32)
            self._unless_there(
                lambda c: stub(c).UserAdd, etcdrpc.AuthUserAddRequest(name=user, password=forgotten)
            )
            self._call(
                lambda c: stub(c).UserGrantRole,
                etcdrpc.AuthUserGrantRoleRequest(user=user, role=user),
            )
        self._call(lambda c: stub(c).AuthEnable, etcdrpc.AuthEnableRequest())

    def _unless_there(
        self, method: Callable[[grpc.Channel], grpc.Unary[Q, object]], request: Q
    ) -> None:
        try:
            self._call(method, request)
        except FlannelError as error:
            if THERE not in str(error):
                raise
