"""flannel's network config, field by field."""

from __future__ import annotations

import json
import random
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from driver.errors import BadRecord
from driver.flannel.network_config import read_config
from driver.model.records import Overlay

VXLAN = {"Type": "vxlan"}


def config(**fields: Any) -> str:
    return json.dumps({"Network": "10.3.0.0/16", "Backend": VXLAN, **fields})


@pytest.mark.parametrize(
    ("network", "length", "first", "last"),
    [
        ("10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0"),
        ("10.3.0.0/8", 24, "10.0.1.0", "10.255.255.0"),
        ("10.3.4.0/22", 24, "10.3.5.0", "10.3.7.0"),
        ("10.3.0.0/23", 25, "10.3.0.128", "10.3.1.128"),
        ("10.3.0.0/24", 26, "10.3.0.64", "10.3.0.192"),
        ("10.3.0.0/28", 30, "10.3.0.4", "10.3.0.12"),
        ("10.3.7.9/16", 24, "10.3.1.0", "10.3.255.0"),
    ],
)
def test_defaults(network: str, length: int, first: str, last: str) -> None:
    assert read_config(config(Network=network)) == Overlay(
        IPv4Network(network, strict=False),
        length,
        IPv4Address(first),
        IPv4Address(last),
        "vxlan",
        vni=1,
        port=8472,
    )


def test_every_field_is_read_in_any_case_and_unknown_ones_are_not() -> None:
    text = json.dumps(
        {
            "network": "10.3.0.0/16", "SUBNETLEN": 28, "subnetMin": "10.3.0.0",
            "SubnetMax": "10.3.9.16", "enableipv4": True, "EnableNFTables": True, "Foo": [1],
            "backend": {
                "TYPE": "VXLAN", "vni": 70000, "PORT": 4789, "Mtu": 1400, "gbp": True,
                "Learning": True, "directRouting": True, "MacPrefix": "0E-2A", "Name": "x",
            },
        }
    )  # fmt: skip
    assert read_config(text) == Overlay(
        IPv4Network("10.3.0.0/16"), 28, IPv4Address("10.3.0.0"), IPv4Address("10.3.9.16"),
        "vxlan", 70000, 4789, gbp=True, learning=True, direct_routing=True, mtu=1400,
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"SubnetLen": None},
        {"SubnetLen": 0},
        {"SubnetMin": "0.0.0.0"},
        {"SubnetMax": "0.0.0.0"},
        {"EnableIPv4": None, "EnableIPv6": None, "EnableNFTables": None},
        {"Backend": {"Type": "vxlan", "Port": 0, "MTU": 0}},
        {"Backend": {"Type": "vxlan", "VNI": None, "Port": None, "MTU": None, "GBP": None}},
        {"EnableIPv6": True, "IPv6Network": "fd00:5::/48"},
        {"EnableIPv6": True, "IPv6Network": "fd00::/120", "IPv6SubnetMin": "fd00::"},
        {"IPv6Network": "fd00:5::/127"},
        {"Networks": ["10.9.0.0/16"]},
    ],
)
def test_what_says_nothing_new(fields: dict[str, Any]) -> None:
    assert read_config(config(**fields)) == read_config(config())


def test_host_gw_has_no_options() -> None:
    overlay = read_config(config(Backend={"Type": "Host-GW", "VNI": "many"}))
    assert (overlay.backend, overlay.vni) == ("host-gw", 1)


def test_an_order_of_first_and_last_that_leaves_nothing_is_not_refused() -> None:
    overlay = read_config(config(SubnetMin="10.3.9.0", SubnetMax="10.3.8.0"))
    assert overlay.subnet_min > overlay.subnet_max


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Network": ""}, 'Network "" is not a prefix like'),
        ({"Network": None}, "Network null is not a prefix"),
        ({"Network": 5}, "Network 5 is not a prefix"),
        ({"Network": "10.3.0.0"}, 'Network "10.3.0.0" is not a prefix'),
        ({"Network": "10.3.0.0/255.255.0.0"}, "is not a prefix"),
        ({"Network": "10.3.0.0/+8"}, "is not a prefix"),
        ({"Network": "fd00::/48"}, 'Network "fd00::/48" is not a prefix'),
        ({"Network": "0.0.0.0/0"}, "Network 0.0.0.0/0 cannot be an overlay's network"),
        ({"Network": "0.0.0.0/1"}, "Network 0.0.0.0/1 cannot be an overlay's network: it is wider"),
        ({"Network": "10.0.0.0/7"}, "cannot be an overlay's network: it is wider than a /8"),
        ({"Network": "0.0.0.0/8"}, "cannot be an overlay's network: it overlaps 0.0.0.0/8"),
        ({"Network": "127.1.0.0/16"}, "an overlay's network: it overlaps 127.0.0.0/8"),
        ({"Network": "169.254.0.0/16"}, "an overlay's network: it overlaps 169.254.0.0/16"),
        ({"Network": "169.0.0.0/8"}, "an overlay's network: it overlaps 169.254.0.0/16"),
        ({"Network": "230.0.0.0/8"}, "an overlay's network: it overlaps 224.0.0.0/4"),
        ({"Network": "10.3.0.0/29"}, "no room for four subnets"),
        ({"SubnetLen": 31}, "SubnetLen 31 is not from 18 (four subnets in 10.3.0.0/16) to 30"),
        ({"SubnetLen": 17}, "SubnetLen 17 is not from 18"),
        ({"SubnetLen": -1}, "SubnetLen -1 is not a whole number"),
        ({"SubnetLen": "24"}, 'SubnetLen "24" is not a whole number'),
        ({"SubnetLen": 24.0}, "SubnetLen 24.0 is not a whole number"),
        ({"SubnetLen": True}, "SubnetLen true is not a whole number"),
        ({"SubnetMin": ""}, 'SubnetMin "" is not an IPv4 address; leave it out'),
        ({"SubnetMin": None}, "SubnetMin null is not an IPv4 address"),
        ({"SubnetMax": "10.4.0.0"}, "SubnetMax 10.4.0.0 is not inside 10.3.0.0/16"),
        ({"SubnetMin": "10.3.1.7"}, "SubnetMin 10.3.1.7 is not the first address of a /24 subnet"),
        ({"EnableIPv4": False}, "an overlay without IPv4 is not supported"),
        ({"EnableIPv4": "yes"}, 'EnableIPv4 "yes" is neither true nor false'),
        ({"EnableNFTables": 1}, "EnableNFTables 1 is neither"),
        ({"EnableIPv6": True}, "IPv6Network is missing"),
        ({"EnableIPv6": True, "IPv6Network": "::/0"}, "IPv6Network ::/0 cannot be an overlay"),
        ({"EnableIPv6": True, "IPv6Network": "fd00::/125"}, "IPv6Network fd00::/125 has no room"),
        ({"EnableIPv6": True, "IPv6Network": "fd00::/48", "IPv6SubnetLen": 127}, "is not from 50"),
        ({"IPv6Network": "nonsense"}, 'IPv6Network "nonsense" is not a prefix like'),
        ({"Backend": None}, 'Backend type "" is not supported; the supported ones are vxlan and'),
        ({"Backend": {}}, 'Backend type "" is not supported'),
        ({"Backend": "vxlan"}, 'Backend "vxlan" is not a JSON object like {"Type": "vxlan"}'),
        ({"Backend": {"Type": "wireguard"}}, 'Backend type "wireguard" is not supported'),
        ({"Backend": {"Type": 5}}, "Backend type 5 is not supported"),
        ({"Backend": {**VXLAN, "VNI": 2**24}}, "VNI 16777216 is not a whole number from 1"),
        ({"Backend": {**VXLAN, "VNI": "1"}}, 'VNI "1" is not a whole number'),
        ({"Backend": {**VXLAN, "Port": 65536}}, "Port 65536 is not a whole number from 1 to 65535"),
        ({"Backend": {**VXLAN, "MTU": 40}}, "MTU 40 is not a whole number from 118 to 65535"),
        ({"Backend": {**VXLAN, "DirectRouting": "true"}}, 'DirectRouting "true" is neither'),
    ],
)  # fmt: skip
def test_what_flannel_refuses(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read_config(config(**fields))
    assert words in str(caught.value)


def test_no_backend_means_udp_which_is_told() -> None:
    with pytest.raises(BadRecord, match=r'"udp" \(the default without a Backend\) is not sup'):
        read_config('{"Network": "10.3.0.0/16"}')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("{} {}", "is not JSON"),
        ("[1]", "is not a JSON object: [1]"),
        ("null", "is not a JSON object"),
        ("{}", "Network is missing"),
        ('{"Network": NaN}', "NaN is not a JSON value"),
        (b"\xff\xfe{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('"' + "x" * 500 + '"', "xxx..."),
    ],
)
def test_what_is_no_document(text: str | bytes, words: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read_config(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 250


def test_nothing_else_than_a_bad_record_comes_of_damage() -> None:
    whole = config(SubnetLen=24, SubnetMin="10.3.1.0", EnableIPv6=False).encode()
    source = random.Random(5)  # noqa: S311
    taken = 0
    for _ in range(3000):
        bad = bytearray(whole)
        for _ in range(source.randint(1, 4)):
            bad[source.randrange(len(bad))] = source.randrange(256)
        try:
            overlay = read_config(bytes(bad))
        except BadRecord:
            continue
        assert overlay.subnet_min in overlay.network
        taken += 1
    assert 0 < taken < 3000, "damage of both kinds"
