"""What `check` learns of real members of etcd."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from driver.flannel.etcd.client import Etcd
from driver.flannel.etcd.settings import EtcdSettings
from driver.setup import etcd_look
from driver.setup.etcd_look import MemberLook
from tests.bed import wait_for
from tests.e2e.etcd_bed import Authority, Cluster, cluster
from tests.unit.etcd_member import CONFIG, PREFIX


def look(etcd: Cluster, urls: str = "", **settings: Any) -> list[MemberLook]:
    made = EtcdSettings.read(urls or etcd.urls, PREFIX, **settings)
    return list(etcd_look.look(made, Etcd))


def test_members_without_and_with_a_config_and_one_that_is_away(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as etcd:
        (found,) = look(etcd)
        assert (found.fault, found.overlay) == ("", None)
        assert found.ahead_s is not None
        assert abs(found.ahead_s) < 5, "it runs on this machine"
        etcd.etcdctl("put", f"{PREFIX}/config", CONFIG)
        here, away = look(etcd, f"{etcd.urls},http://127.0.0.1:1")
        assert here.fault == ""
        assert str(here.overlay and here.overlay.network) in CONFIG
        assert away.overlay is None
        assert "http://127.0.0.1:1" in away.fault
        etcd.etcdctl("put", f"{PREFIX}/config", "nonsense")
        (bad,) = look(etcd)
        assert bad.fault.startswith(f"{PREFIX}/config in etcd: ")


def test_a_clock_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    with cluster(tmp_path, 1) as etcd:
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        (found,) = look(etcd)
        assert found.ahead_s is not None
        assert abs(found.ahead_s - 3600) < 5


def test_tls(tmp_path: Path) -> None:
    right, wrong = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = right.issue("server")
    options = ["--cert-file", str(cert), "--key-file", str(key),
               "--trusted-ca-file", str(right.cert), "--client-cert-auth"]  # fmt: skip
    mine = dict(zip(("certfile", "keyfile"), map(str, right.issue("client")), strict=True))
    with cluster(tmp_path, 1, options) as etcd:
        wait_for(lambda: not look(etcd, cafile=str(right.cert), **mine)[0].fault, "etcd over TLS")
        (good,) = look(etcd, cafile=str(right.cert), **mine)
        assert good.ahead_s is not None
        (strange,) = look(etcd, cafile=str(wrong.cert), **mine)
        assert "(self-signed certificate" in strange.fault or "(unable to get" in strange.fault
        (without,) = look(etcd, cafile=str(right.cert))
        assert "client certificate" in without.fault
