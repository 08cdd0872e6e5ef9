"""TLS and users of a real etcd."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from driver.errors import Unavailable
from driver.flannel.etcd.client import Etcd
from driver.flannel.etcd.registry import KeyRange
from driver.flannel.lease_types import LeaseTimes
from tests.bed import wait_for
from tests.e2e.etcd_bed import ALL, Authority, Cluster, Proxy, answers, cluster, supports, took
from tests.unit.etcd_contract import check_registry
from tests.unit.etcd_member import CONFIG, FOLDER, PREFIX, Member, vtep


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right, wrong = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = right.issue("server")
    options = ["--cert-file", str(cert), "--key-file", str(key),
               "--trusted-ca-file", str(right.cert), "--client-cert-auth"]  # fmt: skip
    mine: dict[str, Any] = dict(
        zip(("certfile", "keyfile"), map(str, right.issue("client")), strict=True)
    )
    theirs: dict[str, Any] = dict(
        zip(("certfile", "keyfile"), map(str, wrong.issue("stranger")), strict=True)
    )
    with cluster(tmp_path, 1, options) as etcd:
        port = etcd.servers[0].port
        good = etcd.client(cafile=str(right.cert), **mine)
        wait_for(lambda: answers(good), "etcd over TLS")
        check_registry(good, "/contract")
        assert answers(etcd.client(f"https://localhost:{port}", cafile=str(right.cert), **mine))
        for settings, words in (
            ({"cafile": str(wrong.cert), **mine}, "not signed by our CA"),
            ({**mine}, "not signed by our CA"),
            ({"cafile": str(right.cert)}, "client certificate"),
            ({"cafile": str(right.cert), **theirs}, "client certificate"),
        ):
            seconds, error = took(partial(etcd.client(limit_s=2, **settings).read, ALL))
            assert seconds < 5
            assert words in str(error), error
        _, error = took(lambda: etcd.client(f"http://127.0.0.1:{port}", 2).read(ALL))
        assert str(error).endswith(
            f"http://127.0.0.1:{port}: it hangs up; is it an https endpoint?"
        )
        check_that_files_are_read_anew(etcd, tmp_path, right, wrong)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    cert, key = right.issue("misnamed", "DNS:elsewhere.invalid")
    options = ["--cert-file", str(cert), "--key-file", str(key)]
    (tmp_path / "second").mkdir()
    with cluster(tmp_path / "second", 1, options) as etcd:
        _, error = took(lambda: etcd.client(cafile=str(right.cert), limit_s=2).read(ALL))
        assert "for another name" in str(error)


def check_that_files_are_read_anew(
    etcd: Cluster, folder: Path, right: Authority, wrong: Authority
) -> None:
    """Use one client while its CA is missing, garbage, another one, and right."""
    mine: dict[str, Any] = {"certfile": str(folder / "client.pem"),
                            "keyfile": str(folder / "client.key")}  # fmt: skip
    ca = folder / "late.pem"
    client = etcd.client(limit_s=2, cafile=str(ca), **mine)
    for text, words in (
        (None, "cannot be read: No such file"),
        ("garbage", "holds no certificate in PEM form"),
        (wrong.cert.read_text(), "not signed by our CA"),
    ):
        if text is not None:
            ca.write_text(text)
        wait_for(lambda: words in str(took(partial(client.read, ALL))[1]), words)
    ca.write_text(right.cert.read_text())
    wait_for(lambda: answers(client), "the client to read the file again")
    proxy = Proxy(etcd.servers[0].port)
    with closing(proxy):
        urls = f"{proxy.url.replace('http:', 'https:')},{etcd.urls}"
        two = etcd.client(urls, limit_s=4, cafile=str(ca), **mine)
        assert answers(two)
    ca.write_text("garbage")
    assert answers(two), "the other member takes over while the file is garbage"
    ca.unlink()
    assert answers(client)


def test_tls_towards_a_member_without(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with cluster(tmp_path) as etcd:
        url = etcd.urls.replace("http:", "https:")
        _, error = took(lambda: etcd.client(url, 2, cafile=str(authority.cert)).read(ALL))
        assert str(error).endswith(f"{url}: TLS: it hangs up; is it an http endpoint?")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield an etcd with users, whose tokens last two seconds."""
    options = ["--auth-token", "simple"]
    if supports("--auth-token-ttl"):
        options += ["--auth-token-ttl", "2"]
    with cluster(tmp_path_factory.mktemp("guarded"), 1, options) as etcd:
        for command in (
            "user add root:rootpw", "role add root", "user grant-role root root",
            "user add flannel:S3cretPassword", "role add flannel",
            f"role grant-permission flannel read {PREFIX}/config",
            f"role grant-permission flannel --prefix=true readwrite {PREFIX}/subnets",
            "user grant-role flannel flannel",
        ):  # fmt: skip
            etcd.etcdctl(*command.split())
        etcd.etcdctl("put", f"{PREFIX}/config", CONFIG)
        etcd.etcdctl("auth", "enable")
        yield etcd


LOGIN: dict[str, Any] = {"username": "flannel", "password": "S3cretPassword"}


def test_a_password_that_is_right_and_one_that_is_wrong(
    guarded: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = KeyRange(f"{PREFIX}/config")
    assert guarded.client(**LOGIN).read(config)[0]
    for settings, words in (
        ({}, "wants a user name and a password"),
        ({**LOGIN, "password": "Wr0ngPassword"}, "wrong user name or password"),
        ({**LOGIN, "username": "nobody"}, "wrong user name or password"),
    ):
        client = guarded.client(**settings)
        for refused in (partial(client.read, config), partial(client.put_if, "/x", "x", 0)):
            _, error = took(refused)
            assert words in str(error), error
            assert not isinstance(error, Unavailable)
            assert "Password" not in f"{error!r} {error.__cause__!r} {error.__context__!r}"
    client = guarded.client(**LOGIN)
    denied: tuple[Callable[[], object], ...] = (
        lambda: client.put_if(f"{PREFIX}/config", "x", 0),
        lambda: client.read(KeyRange("/elsewhere")),
        lambda: client.watch({KeyRange("/elsewhere"): 1}),
    )
    for call in denied:
        _, error = took(call)
        assert "permission denied" in str(error), error
    assert "Password" not in caplog.text
    assert "Password" not in repr(client.__dict__["_settings"])


def test_a_token_that_has_run_out_is_renewed(guarded: Cluster) -> None:
    client = guarded.client(**LOGIN)
    span = KeyRange(f"{PREFIX}/subnets", prefix=True)
    client.read(span)
    before = token(client)
    assert before

    def gone() -> bool:
        """Ask with the old token, which does not renew it after its end."""
        client.read(span)
        return token(client) != before

    wait_for(gone, "the token to run out", 60, every_s=4)
    stale(client)
    with closing(client.watch({span: 1})) as feed:
        stale(client)
        key = FOLDER + "10.5.77.0-24"
        assert client.put_if(key, "x", 0, client.grant(60))
        batch = wait_for(lambda: feed.next(1), "the event")
        assert batch
        assert batch.events[0].key == key
        stale(client)
        assert client.delete_if(key, client.read(span)[0][0].revision)


def token(client: Etcd) -> str:
    found: str = client.__dict__["_token"]
    return found


def stale(client: Etcd) -> None:
    """Make a client use a token that etcd does not know, as after a restart of etcd."""
    client.__dict__["_token"] = "aaaaaaaaaaaaaaaa.1"  # noqa: S105


def test_a_membership_with_few_rights(guarded: Cluster) -> None:
    client = guarded.client(**LOGIN)
    with Member(client, vtep(11), times=LeaseTimes(30, 28)) as host:
        host.until("held", problems=())
        stale(client)
        host.wait(lambda _: host.phases.count("renewing") > 1, "renewals")
        assert "unreachable" not in host.phases
