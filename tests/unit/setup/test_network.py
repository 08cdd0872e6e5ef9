"""The network config that `init` writes, and how it treats one that is there."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from driver.errors import BadRecord, BadRequest, Conflict
from driver.flannel.network_config import read_config
from driver.setup.first_host import Network, define
from tests.unit.etcd_fake import FakeRegistry
from tests.unit.setup.fake_machine import CONFIG

USUAL = Network(IPv4Network("10.2.0.0/16"))


@pytest.mark.parametrize(
    ("network", "length"),
    [
        ("10.0.0.0/8", 21),
        ("10.2.0.0/16", 21),
        ("10.2.0.0/18", 21),
        ("10.2.0.0/20", 23),
        ("10.2.0.0/26", 29),
    ],
)
def test_the_usual_length_leaves_room_for_eight_hosts(network: str, length: int) -> None:
    asked = Network.read(IPv4Network("10.9.0.0/16"), network, None, None)
    assert read_config(asked.text()).subnet_len == length


@pytest.mark.parametrize(
    ("network", "length", "words"),
    [
        ("here", None, "--network 'here' is no IPv4 prefix like 10.2.0.0/16"),
        ("10.2.0.1/16", None, "host bits set"),
        ("", None, "--network '' is no IPv4 prefix"),
        ("10.3.0.0/16", 31, "SubnetLen 31"),
        ("10.3.0.0/16", 0, "--subnet-len 0 is no"),
        ("127.0.0.0/8", None, "127.0.0.0/8 cannot be"),
    ],
)
def test_no_bad_config_is_written(network: str, length: int | None, words: str) -> None:
    with pytest.raises((BadRequest, BadRecord), match=words):
        Network.read(IPv4Network("10.2.0.0/16"), network, length, None)


def test_the_first_config_is_written_once() -> None:
    registry = FakeRegistry()
    first = Network(IPv4Network("10.2.0.0/16"), IPv4Network("10.3.0.0/16"), 25, "host-gw")
    overlay = define(registry, "/f", first)
    text = registry.values()["/f/config"]
    assert (overlay.subnet_len, overlay.backend) == (25, "host-gw")
    assert define(registry, "/f", USUAL) == define(registry, "/f", first) == overlay
    for other in (
        Network(USUAL.usual, IPv4Network("10.4.0.0/16")),
        Network(USUAL.usual, subnet_len=24),
        Network(USUAL.usual, backend="vxlan"),
    ):
        with pytest.raises(Conflict, match=r"at /f/config is already: network 10.3.0.0/16, a /25"):
            define(registry, "/f", other)
    assert registry.values() == {"/f/config": text}


def test_another_host_is_faster() -> None:
    registry = FakeRegistry()

    def write() -> None:
        registry.change(("/f/config", CONFIG))

    registry.before_put.append(write)
    assert define(registry, "/f", USUAL) == read_config(CONFIG)
