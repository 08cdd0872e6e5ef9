"""Warnings of an etcd that containers can write to."""

from __future__ import annotations

import pytest

from driver.flannel.etcd.exposure import warnings
from driver.flannel.etcd.settings import EtcdSettings
from driver.model.facts import Facts

HERE = Facts(foreign=frozenset({"docker0"}))
HTTP, HTTPS = "http://192.0.2.1:2379", "https://192.0.2.1:2379"
CERTIFICATE = {"certfile": "/c", "keyfile": "/k"}


@pytest.mark.parametrize(
    ("endpoints", "settings", "facts", "named"),
    [
        (HTTP, {}, HERE, HTTP),
        (HTTP, CERTIFICATE, HERE, HTTP),
        (HTTPS, {"cafile": "/ca"}, HERE, HTTPS),
        (f"{HTTP},{HTTPS}", CERTIFICATE, HERE, HTTP),
        (HTTPS, CERTIFICATE, HERE, ""),
        (HTTP, {"username": "u", "password": "p"}, HERE, ""),
        (HTTP, {}, Facts(), ""),
    ],
)
def test_an_etcd_that_lets_containers_in_is_told(
    endpoints: str, settings: dict[str, str], facts: Facts, named: str
) -> None:
    found = warnings(EtcdSettings.read(endpoints, **settings), facts, ours=False)
    assert len(found) == bool(named)
    if named:
        assert f"etcd at {named} asks for no client certificate and no login" in found[0]
        assert "containers on docker0 may reach it" in found[0]


def test_only_some_bridges_are_named_and_without_etcd_there_is_nothing_to_tell() -> None:
    many = Facts(foreign=frozenset(f"br-{n}" for n in range(5)))
    assert (
        "on br-0, br-1, br-2 and others may"
        in warnings(EtcdSettings.read(HTTP), many, ours=False)[0]
    )
    assert warnings(None, many, ours=True) == []


def test_our_own_networks_are_named_where_a_setting_lets_them_in() -> None:
    [told] = warnings(EtcdSettings.read(HTTP), Facts(), ours=True)
    assert "containers on this plugin's networks may reach it" in told
