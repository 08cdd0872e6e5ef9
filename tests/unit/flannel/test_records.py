"""flannel's keys and values, byte for byte."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest

from driver.errors import BadRecord
from driver.flannel.etcd.registry import Entry
from driver.flannel.records import (
    LeaseRecord,
    lease_key,
    lease_value,
    read_key,
    read_lease,
    read_leases,
)
from tests.unit.flannel_sample import (
    BROKEN,
    FOLDER,
    GOLDEN,
    GOLDEN_DUAL,
    GOLDEN_GW,
    IP,
    MAC,
    N,
    value,
)


def read(**fields: Any) -> LeaseRecord:
    return read_lease(FOLDER + "10.5.10.0-24", value(**fields), 7)


# --- keys and values ---


def test_a_value_is_written_as_flannel_writes_it() -> None:
    assert lease_value(IP("192.168.77.11"), "vxlan", 1, MAC).encode() == GOLDEN
    assert lease_value(IP("192.168.77.11"), "host-gw", 1, MAC) == (
        '{"PublicIP":"192.168.77.11","PublicIPv6":null,"BackendType":"host-gw"}'
    )


@pytest.mark.parametrize(
    ("key", "subnet", "subnet6"),
    [
        ("10.5.34.0-24", "10.5.34.0/24", None),
        ("10.5.34.0-24&fd00:5:0:45::-64", "10.5.34.0/24", "fd00:5:0:45::/64"),
        ("10.12.13.0-24&fd00:12:13::-56", "10.12.13.0/24", "fd00:12:13::/56"),
        ("0.0.0.0-0&fd00:5:0:13::-64", "0.0.0.0/0", "fd00:5:0:13::/64"),
        ("10.5.34.0-31", None, None),
    ],
)
def test_a_key_is_read_and_written(key: str, subnet: str | None, subnet6: str | None) -> None:
    found = read_key(FOLDER + key)
    assert lease_key(*found) == key
    if subnet:
        assert found == (N(subnet), IPv6Network(subnet6) if subnet6 else None)
    assert read_key("anything" + "/" + key) == found


@pytest.mark.parametrize(
    "key",
    [
        "", "config", "10.5.34.0", "10.5.34-24", "10.5.34.0-", "-24", "10.5.34.0/24",
        "10.5.300.0-24", "10.5.34.0-24x", "10.5.34.0-24/", "10.5.34.0-24\n", "10.5.34.0-32",
        "10.5.34.0-24&", "10.5.34.0-24&fd00::", "10.5.34.0-24&fd00::-128", "fd00:5::-64",
        "10.5.34.0-24&FD00:5::-64", "10.5.34.0-24&fd00:::5-64", "10.5.34.0-99999999999999999999",
        "\u0661\u0660.5.34.0-24", "10.05.34.0-24",
    ],
)  # fmt: skip
def test_a_key_that_is_no_subnets(key: str) -> None:
    with pytest.raises(BadRecord, match=r"does not name a subnet$"):
        read_key(FOLDER + key)


def test_what_flannel_has_written_is_read() -> None:
    key = FOLDER + "10.5.10.0-24"
    four = LeaseRecord(key, N("10.5.10.0/24"), None, IP("192.168.77.11"), "vxlan", MAC, 7)
    assert read_lease(key, GOLDEN, 7) == four
    key = FOLDER + "10.5.34.0-24&fd00:5:0:45::-64"
    dual = read_lease(key, GOLDEN_DUAL, 8)
    assert (dual.subnet, dual.subnet6) == (N("10.5.34.0/24"), IPv6Network("fd00:5:0:45::/64"))
    assert (dual.public_ip, dual.mac) == (IP("192.168.77.11"), "aa:27:46:00:38:c1")
    gateway = read_lease(key, GOLDEN_GW, 9)
    assert (gateway.backend, gateway.mac) == ("host-gw", None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Unknown": [1]}, {}),
        ({"PublicIPv6": "fd77::1"}, {}),
        ({"BackendData": {"vni": 99999, "vtepmac": MAC.upper(), "x": 1}}, {}),
        ({"BackendData": {"VNI": "odd", "VtepMAC": "fe-2d-0c-76-f0-81"}}, {}),
        ({"BackendData": {"VtepMAC": "fe2d.0c76.f081"}}, {}),
        ({"BackendData": None}, {"mac": None}),
        ({"BackendData": {}}, {"mac": None}),
        ({"BackendType": "wireguard", "BackendData": 5}, {"mac": None, "backend": "wireguard"}),
        ({"BackendType": None, "BackendData": [1]}, {"mac": None, "backend": ""}),
        ({"PublicIP": "127.0.0.1"}, {"public_ip": IP("127.0.0.1")}),
    ],
)
def test_a_value_is_read_with_tolerance(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read(**fields) == replace(read(), **expected)


def test_letter_case_and_a_missing_address_do_not_matter() -> None:
    key = FOLDER + "10.5.10.0-24"
    assert read_lease(key, GOLDEN.replace(b"PublicIP", b"publicip"), 7) == read()
    text = GOLDEN.replace(b'"PublicIPv6":null,', b"")
    assert read_lease(key, text, 7) == read()
    assert read_lease(key, b"{}", 7).public_ip == IP(0)
    assert read_lease(key, b'{"PublicIP":"192.168.77.11"}', 7).backend == ""


@pytest.mark.parametrize(("fields", "words"), BROKEN)
def test_a_value_that_cannot_be_read(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read(**fields)
    assert words in str(caught.value)
    assert "10.5.10.0-24" in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"5", b"\xff", b"[" * 100_000])
def test_a_value_that_is_no_object(text: bytes) -> None:
    with pytest.raises(BadRecord, match=r"is not (JSON|a JSON object)"):
        read_lease(FOLDER + "10.5.10.0-24", text, 1)


def test_nothing_else_than_a_bad_record_comes_of_damage() -> None:
    source = random.Random(7)  # noqa: S311
    for _ in range(3000):
        bad = bytearray(GOLDEN_DUAL)
        for _ in range(source.randint(1, 4)):
            bad[source.randrange(len(bad))] = source.randrange(256)
        _, problems = read_leases([Entry(FOLDER + "10.5.10.0-24", bytes(bad), 1)], {})
        assert len(problems) < 2
