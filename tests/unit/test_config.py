"""The settings."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from driver.config import SETTINGS, Config
from driver.errors import BadRequest

VARIABLES = {s.option: s.variable for s in SETTINGS}


def test_the_defaults_are_usable() -> None:
    assert Config.read({}, {}) == Config(
        lease="auto",
        network=IPv4Network("10.2.0.0/16"),
        subnet_len=20,
        subnet_file=Path("/run/flannel/subnet.env"),
        etcd=None,
        iface="",
        public_ip=None,
        firewall="auto",
        state_dir=Path("/var/lib/docker-flannel"),
        sockets=(Path("/run/docker/plugins/flannel.sock"),),
        require_ipam=False,
        ip_forward=True,
        etcd_from_containers=False,
        log_level="info",
    )


GIVEN = {
    "--lease": ("standalone", "lease", "standalone"),
    "--network": ("10.9.0.0/16", "network", IPv4Network("10.9.0.0/16")),
    "--subnet-len": ("24", "subnet_len", 24),
    "--subnet-file": ("/x/subnet.env", "subnet_file", Path("/x/subnet.env")),
    "--state-dir": ("/x/state", "state_dir", Path("/x/state")),
    "--socket": ("/x/sock,/y/sock", "sockets", (Path("/x/sock"), Path("/y/sock"))),
    "--require-ipam": ("1", "require_ipam", True),
    "--ip-forward": ("0", "ip_forward", False),
    "--etcd-from-containers": ("1", "etcd_from_containers", True),
    "--log-level": ("debug", "log_level", "debug"),
    "--firewall": ("iptables", "firewall", "iptables"),
    "--iface": ("eth1", "iface", "eth1"),
    "--public-ip": ("192.0.2.9", "public_ip", IPv4Address("192.0.2.9")),
}


ETCD = {
    "--etcd-prefix": ("/elsewhere", "prefix", "/elsewhere"),
    "--etcd-cafile": ("/ca", "cafile", Path("/ca")),
    "--etcd-certfile": ("/cert", "certfile", Path("/cert")),
    "--etcd-keyfile": ("/key", "keyfile", Path("/key")),
    "--etcd-username": ("me", "username", "me"),
    "--etcd-password": ("secret", "password", "secret"),
}


def test_every_setting_is_tested() -> None:
    assert {*GIVEN, *ETCD, "--etcd-endpoints"} == set(VARIABLES)


def test_the_settings_of_etcd() -> None:
    given = {VARIABLES[option]: text for option, (text, _, _) in ETCD.items()}
    assert Config.read({}, given).etcd is None, "without endpoints there is no etcd"
    config = Config.read({"--etcd-endpoints": "https://192.0.2.1:2379"}, given)
    assert (config.lease, config.follows_etcd) == ("auto", True)
    assert config.etcd is not None
    assert [getattr(config.etcd, name) for _, name, _ in ETCD.values()] == [
        value for _, _, value in ETCD.values()
    ]
    assert "secret" not in repr(config)


@pytest.mark.parametrize("option", GIVEN)
def test_an_option_goes_before_a_variable_and_that_before_the_default(option: str) -> None:
    text, name, value = GIVEN[option]
    variable, default = VARIABLES[option], getattr(Config.read({}, {}), name)
    assert getattr(Config.read({}, {variable: text}), name) == value != default
    assert getattr(Config.read({option: text}, {variable: "nonsense"}), name) == value
    assert getattr(Config.read({option: None}, {variable: text}), name) == value
    assert getattr(Config.read({option: ""}, {variable: ""}), name) == default


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--lease", "etcd", "--lease etcd needs --etcd-endpoints"),
        ("--lease", "zk", "--lease 'zk' is none of auto, etcd, subnet-file, standalone"),
        ("--firewall", "ufw", "--firewall 'ufw' is none of auto, nft, iptables"),
        ("--public-ip", "fd00::1", "--public-ip 'fd00::1' is no IPv4 address"),
        ("--lease", "Auto", "is none of"),
        ("--socket", "/run/a.sock,", "is no absolute path, or several, separated by commas"),
        ("--socket", "flannel.sock", "is no absolute path"),
        ("--log-level", "INFO", "--log-level 'INFO' is none of debug, info, warning, error"),
        ("--require-ipam", "yes", "--require-ipam 'yes' is none of 0, 1"),
        ("--network", "10.2.0.1/16", "--network '10.2.0.1/16' is no IPv4 prefix like 10.2.0.0/16"),
        ("--network", "fd00::/64", "is no IPv4 prefix"),
        ("--network", "here", "is no IPv4 prefix"),
        ("--network", "0.0.0.0/1", "is no network for containers: it is wider than a /8"),
        ("--subnet-len", "15", "is no number from 16 (of 10.2.0.0/16) to 29"),
        ("--subnet-len", "30", "--subnet-len '30' is no number from 16"),
        ("--subnet-len", "/24", "is no number"),
        ("--subnet-len", "-24", "is no number"),
        ("--subnet-len", "9" * 5000, "is no number"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(option: str, value: str, words: str) -> None:
    for options, environment in (({option: value}, {}), ({}, {VARIABLES[option]: value})):
        with pytest.raises(BadRequest, match=f"^{option} ") as caught:
            Config.read(options, environment)
        assert words in str(caught.value)


@pytest.mark.parametrize("length", ["16", "29"])
def test_the_ends_of_what_is_allowed_are_allowed(length: str) -> None:
    assert Config.read({"--subnet-len": length}, {}).subnet_len == int(length)


def test_the_length_is_checked_against_the_network() -> None:
    with pytest.raises(BadRequest, match=r"from 22 \(of 10.9.0.0/22\) to 29"):
        Config.read({"--network": "10.9.0.0/22"}, {})
