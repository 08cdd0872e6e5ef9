"""The settings for etcd, and how its failures are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.errors import BadRequest, Unavailable
from driver.flannel.etcd.client import Etcd
from driver.flannel.etcd.faults import explain
from driver.flannel.etcd.registry import KeyRange
from driver.flannel.etcd.settings import Endpoint, EtcdSettings


def test_settings_are_read() -> None:
    found = EtcdSettings.read(
        " http://192.0.2.1:2379 ,https://etcd.example/,[fd00::1]:4001,etcd2,",
        "a//b/",
        cafile="/ca",
        certfile="/cert",
        keyfile="/key",
        username="u",
        password="S3cret",  # noqa: S106
    )
    assert found.endpoints == (
        Endpoint("192.0.2.1", 2379, tls=False),
        Endpoint("etcd.example", 2379, tls=True),
        Endpoint("fd00::1", 4001, tls=False),
        Endpoint("etcd2", 2379, tls=False),
    )
    assert [str(e) for e in found.endpoints][:3] == [
        "http://192.0.2.1:2379",
        "https://etcd.example:2379",
        "http://[fd00::1]:4001",
    ]
    assert (found.prefix, found.cafile) == ("/a/b", Path("/ca"))
    assert "S3cret" not in repr(found)
    assert EtcdSettings.read("http://a").prefix == "/coreos.com/network"


@pytest.mark.parametrize(
    ("endpoints", "more", "words"),
    [
        ("", {}, "FLANNELD_ETCD_ENDPOINTS names no endpoint"),
        (" , ", {}, "names no endpoint"),
        ("ftp://a", {}, "'ftp://a' is not a URL like"),
        ("http://", {}, "is not a URL like"),
        ("http://a:port", {}, "is not a URL like"),
        ("http://a:99999", {}, "is not a URL like"),
        ("http://a/path", {}, "is not a URL like"),
        ("http://[::1", {}, "is not a URL like"),
        ("http://me:S3cret@a", {}, "must not hold a user name"),
        ("http://a", {"prefix": "/"}, "FLANNELD_ETCD_PREFIX '/' is not a path"),
        ("http://a", {"prefix": "a/../b"}, "is not a path"),
        ("http://a", {"certfile": "/c"}, "go together; one is missing"),
        ("http://a", {"keyfile": "/c"}, "FLANNELD_ETCD_CERTFILE and FLANNELD_ETCD_KEYFILE"),
        ("http://a", {"username": "me"}, "FLANNELD_ETCD_USERNAME and FLANNELD_ETCD_PASSWORD"),
        ("http://a", {"password": "S3cret"}, "go together"),
    ],
)
def test_settings_that_are_refused(endpoints: str, more: dict[str, str], words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        EtcdSettings.read(endpoints, **more)
    assert words in str(caught.value)
    assert "S3cret" not in str(caught.value)


GARBAGE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot be read: No such file or directory; put"), ("", "holds no certificate in PEM"),
     ("garbage", "holds no certificate in PEM"), (GARBAGE, "holds no certificate in PEM")],
)  # fmt: skip
def test_a_bad_certificate_is_told_by_the_calls(
    tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    etcd = Etcd(EtcdSettings.read("https://127.0.0.1:1", cafile=str(file)))
    for _ in range(2):
        with pytest.raises(Unavailable, match=f"^FLANNELD_ETCD_CAFILE {file} {words}"):
            etcd.read(KeyRange("/"))


def test_a_bad_key_is_told_by_the_calls(tmp_path: Path) -> None:
    file = tmp_path / "own.pem"
    file.write_text(GARBAGE)
    etcd = Etcd(EtcdSettings.read("https://127.0.0.1:1", certfile=str(file), keyfile=str(file)))
    with pytest.raises(Unavailable, match="are not a certificate and its key in PEM form"):
        etcd.read(KeyRange("/"))


@pytest.mark.parametrize(
    ("code", "details", "kind", "reason"),
    [
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "member", "no answer in time"),
        ("UNIMPLEMENTED", "unknown service etcdserverpb.KV", "member", "this is not etcd"),
        ("UNAVAILABLE", "... Connection refused", "member", "connection refused"),
        ("UNAVAILABLE", "etcdserver: no leader", "member", "it has no leader"),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", "token", "no longer knows our token"),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", "refused", "wants a user name"),
        ("PERMISSION_DENIED", "etcdserver: permission denied", "refused", "permission denied"),
        ("UNAVAILABLE", "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "tls", "our CA"),
        ("UNKNOWN", "", "member", "UNKNOWN"),
        ("UNKNOWN", "x" * 500, "member", "x" * 160),
    ],
)
def test_failures_are_explained(code: str, details: str, kind: str, reason: str) -> None:
    found = explain(code, details)
    assert found.kind == kind
    assert reason in found.reason
    assert len(found.reason) <= 160


CLOSED = (
    "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed"
)
NO_TLS = f"{CLOSED[:-13]}Handshake read failed (Socket closed)"


def test_http_and_https_are_told_apart() -> None:
    """What gRPC says if a member uses TLS and we do not, and vice versa."""
    fault = explain("UNAVAILABLE", CLOSED, tls=False)
    assert (fault.kind, fault.reason) == ("member", "it hangs up; is it an https endpoint?")
    fault = explain("UNAVAILABLE", NO_TLS, tls=True)
    assert (fault.kind, fault.reason) == ("tls", "TLS: it hangs up; is it an http endpoint?")
    for text in (CLOSED, NO_TLS, "no handshake", "WRONG_VERSION_NUMBER"):
        assert "TLS" not in explain("UNAVAILABLE", text, tls=False).reason
    assert "https" not in explain("UNAVAILABLE", CLOSED, tls=True).reason
