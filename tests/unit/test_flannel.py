"""flannel's keys and values, byte for byte, and who is a peer."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from driver.errors import BadRecord, StoreError
from driver.flannel import (
    LeaseRecord,
    Readings,
    compatible,
    free_subnets,
    lease_key,
    lease_value,
    read_key,
    read_lease,
    read_leases,
    taken_subnets,
)
from driver.leases import read_subnet_file
from driver.model import Overlay, Peer
from driver.peers import Own, sort_peers
from driver.registry import Entry
from driver.subnet_env import write_docker_options, write_subnet_env

N = IPv4Network
IP = IPv4Address
OVERLAY = Overlay(N("10.5.0.0/16"), 24, IP("10.5.1.0"), IP("10.5.255.0"), "vxlan")
OWN = Own(IP("192.168.77.10"), "02:00:00:00:00:01", N("10.5.9.0/24"))
MAC = "fe:2d:0c:76:f0:81"
FOLDER = "/coreos.com/network/subnets/"
GOLDEN = (
    b'{"PublicIP":"192.168.77.11","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"fe:2d:0c:76:f0:81"}}'
)
GOLDEN_DUAL = (
    b'{"PublicIP":"192.168.77.11","PublicIPv6":"fd77::11","BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"aa:27:46:00:38:c1"},'
    b'"BackendV6Data":{"VNI":1,"VtepMAC":"d6:b7:db:a1:ba:09"}}'
)
GOLDEN_GW = b'{"PublicIP":"192.168.77.12","PublicIPv6":"fd77::12","BackendType":"host-gw"}'


def value(**fields: Any) -> bytes:
    return json.dumps({**json.loads(GOLDEN), **fields}).encode()


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
    with pytest.raises(BadRecord, match=r"is no subnet's$"):
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


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"PublicIP": None}, "PublicIP null is no address"),
    ({"PublicIP": ""}, 'PublicIP "" is no address'),
    ({"PublicIP": "1.2.3"}, "is no address"),
    ({"PublicIP": 16909060}, "is no address"),
    ({"PublicIP": "fd77::1"}, "is no address"),
    ({"PublicIPv6": ""}, 'PublicIPv6 "" is no address'),
    ({"PublicIPv6": 5}, "PublicIPv6 5 is no address"),
    ({"BackendType": 5}, "BackendType 5 is no text"),
    ({"BackendData": "x"}, "is no JSON object"),
    ({"BackendData": {"VtepMAC": "xx:2d:0c:76:f0:81"}}, "is no MAC"),
    ({"BackendData": {"VtepMAC": "fe:2d:0c:76:f0"}}, "is no MAC"),
    ({"BackendData": {"VtepMAC": "fe:2d-0c:76:f0:81"}}, "is no MAC"),
    ({"BackendData": {"VtepMAC": 5}}, "VtepMAC 5 is no MAC"),
    ({"BackendData": {"VtepMAC": ""}}, 'VtepMAC "" is no MAC'),
]


@pytest.mark.parametrize(("fields", "words"), BROKEN)
def test_a_value_that_cannot_be_read(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read(**fields)
    assert words in str(caught.value)
    assert "10.5.10.0-24" in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"5", b"\xff", b"[" * 100_000])
def test_a_value_that_is_no_object(text: bytes) -> None:
    with pytest.raises(BadRecord, match="is no JSON"):
        read_lease(FOLDER + "10.5.10.0-24", text, 1)


def test_nothing_else_than_a_bad_record_comes_of_damage() -> None:
    source = random.Random(7)  # noqa: S311
    for _ in range(3000):
        bad = bytearray(GOLDEN_DUAL)
        for _ in range(source.randint(1, 4)):
            bad[source.randrange(len(bad))] = source.randrange(256)
        _, problems = read_leases([Entry(FOLDER + "10.5.10.0-24", bytes(bad), 1)], {})
        assert len(problems) < 2


# --- peers ---


def record(subnet: str, ip: str, mac: str | None = MAC, revision: int = 7) -> LeaseRecord:
    net = N(subnet)
    return LeaseRecord(FOLDER + lease_key(net), net, None, IP(ip), "vxlan", mac, revision)


GOOD = [
    record("10.5.20.0/24", "192.168.77.20", "02:00:00:00:00:20"),
    record("10.5.21.0/24", "192.168.77.21", "02:00:00:00:00:21"),
]
PEERS = frozenset(Peer(r.subnet, r.public_ip, "vxlan", r.mac) for r in GOOD)
MINE = record("10.5.9.0/24", "192.168.77.10", "02:00:00:00:00:01")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (record("10.5.9.0/24", "192.168.77.30"), "gives our own subnet to 192.168.77.30"),
        (record("10.5.9.128/25", "192.168.77.30"), "overlaps our own subnet 10.5.9.0/24"),
        (record("10.5.0.0/16", "192.168.77.30"), "overlaps our own subnet 10.5.9.0/24"),
        (record("10.6.1.0/24", "192.168.77.30"), "is not inside the Network 10.5.0.0/16"),
        (record("10.5.30.0/24", "192.168.77.10"), "has our own PublicIP 192.168.77.10"),
        (record("10.5.30.0/24", "127.0.0.1"), "has the PublicIP 127.0.0.1, which is no host's"),
        (record("10.5.30.0/24", "0.0.0.0"), "has the PublicIP 0.0.0.0"),
        (record("10.5.30.0/24", "224.0.0.1"), "has the PublicIP 224.0.0.1"),
        (record("10.5.30.0/24", "255.255.255.255"), "has the PublicIP 255.255.255.255"),
        (record("10.5.30.0/24", "192.168.77.30", None), "has no VtepMAC"),
        (record("10.5.30.0/24", "192.168.77.30", OWN.mac), "has our own VtepMAC"),
        (record("10.5.30.0/24", "192.168.77.30", "01:00:5e:00:00:01"), "is no host's"),
        (record("10.5.30.0/24", "192.168.77.30", "00:00:00:00:00:00"), "is no host's"),
        (replace(record("10.5.30.0/24", "192.168.77.30"), backend="host-gw"), 'backend "host-gw"'),
        (record("10.5.20.0/24", "192.168.77.30", revision=3), "has the subnet of the later"),
        (record("10.5.30.0/24", "192.168.77.30", GOOD[0].mac, 3), "has the MAC 02:00:00:00:00:20"),
    ],
)  # fmt: skip
def test_what_is_no_peer_is_told_and_takes_nobody_along(bad: LeaseRecord, words: str) -> None:
    for records in ([bad, *GOOD, MINE], [MINE, *GOOD, bad]):
        peers, problems = sort_peers(records, OVERLAY, OWN)
        assert peers == PEERS
        assert len(problems) == 1
        assert words in problems[0]
        assert problems[0].endswith(": skipped")


def test_all_of_it_at_once_takes_nobody_along() -> None:
    entries: list[Entry] = []
    for n, (fields, _) in enumerate(BROKEN):
        entries.append(Entry(f"{FOLDER}10.5.{100 + n}.0-24", value(**fields), n))
    entries.append(Entry(FOLDER + "hello", GOLDEN, 9))
    entries.append(Entry("/coreos.com/network/subnetsXYZ/hello", b"world", 9))
    for n, peer in enumerate(GOOD):
        text = lease_value(peer.public_ip, "vxlan", 1, peer.mac).encode()
        entries.append(Entry(peer.key, text, 50 + n))
    records, problems = read_leases(entries, {})
    assert len(problems) == len(BROKEN) + 2
    assert sort_peers(records, OVERLAY, OWN) == (PEERS, [])


def test_the_later_one_of_two_for_one_subnet_or_mac_counts() -> None:
    old = record("10.5.30.0/24", "192.168.77.30", "02:00:00:00:00:30", 3)
    new = replace(old, public_ip=IP("192.168.77.31"), key=old.key + "&fd00::-64", revision=4)
    assert sort_peers([old, new], OVERLAY, OWN)[0] == {
        Peer(N("10.5.30.0/24"), IP("192.168.77.31"), "vxlan", "02:00:00:00:00:30")
    }
    moved = record("10.5.31.0/24", "192.168.77.32", "02:00:00:00:00:30", 5)
    peers, problems = sort_peers([old, moved], OVERLAY, OWN)
    assert {p.public_ip for p in peers} == {IP("192.168.77.32")}
    assert len(problems) == 1


def test_of_two_subnets_that_begin_alike_one_of_the_right_length_counts() -> None:
    """They would have one VTEP address."""
    good = record("10.5.32.0/24", "192.168.77.30", "02:00:00:00:00:30", 3)
    odd = record("10.5.32.0/25", "192.168.77.31", "02:00:00:00:00:31", 4)
    odder = record("10.5.32.0/26", "192.168.77.32", "02:00:00:00:00:32", 5)
    for records in ([good, odd], [odd, good]):
        peers, problems = sort_peers(records, OVERLAY, OWN)
        assert peers == {good.peer}
        assert f'has the subnet of the "{good.key}"' in problems[0]
    peers, problems = sort_peers([odd, odder], OVERLAY, OWN)
    assert peers == {odder.peer}
    assert "has the subnet of the later" in problems[0]
    same = replace(odd, public_ip=good.public_ip, mac=good.mac)
    assert sort_peers([same, good], OVERLAY, OWN) == ({same.peer, good.peer}, [])


def test_one_host_may_have_two_subnets() -> None:
    one = record("10.5.30.0/24", "192.168.77.30", "02:00:00:00:00:30", 3)
    two = record("10.5.31.0/24", "192.168.77.30", "02:00:00:00:00:30", 4)
    peers, problems = sort_peers([one, two], OVERLAY, OWN)
    assert (len(peers), problems) == (2, [])


def test_without_a_subnet_of_our_own_there_are_peers_too() -> None:
    own = replace(OWN, subnet=None)
    assert sort_peers(GOOD, OVERLAY, own) == (PEERS, [])
    whole = record("10.5.0.0/16", "192.168.77.30")
    assert "is not inside" in sort_peers([*GOOD, whole], OVERLAY, own)[1][0]


def test_peers_of_host_gw_have_no_mac() -> None:
    overlay = replace(OVERLAY, backend="host-gw")
    found = read_lease(FOLDER + "10.5.15.0-24&fd00:5:0:e::-64", GOLDEN_GW, 1)
    assert sort_peers([found], overlay, replace(OWN, mac=None))[0] == {
        Peer(N("10.5.15.0/24"), IP("192.168.77.12"), "host-gw")
    }


def test_a_lease_of_ipv6_alone_is_no_peer() -> None:
    found = read_lease(FOLDER + "0.0.0.0-0&fd00:5:0:e::-64", GOLDEN, 1)
    assert "has no IPv4 subnet" in sort_peers([found], OVERLAY, OWN)[1][0]


# --- free subnets ---


def naive(overlay: Overlay, taken: list[N]) -> list[N]:
    every = overlay.network.subnets(new_prefix=overlay.subnet_len)
    return [n for n in every if compatible(overlay, n) and not any(n.overlaps(t) for t in taken)]


def test_free_subnets_are_those_that_nothing_overlaps() -> None:
    source = random.Random(11)  # noqa: S311
    small = Overlay(N("10.5.0.0/22"), 27, IP("10.5.0.32"), IP("10.5.3.192"), "vxlan")
    for _ in range(300):
        taken = [
            N(
                (int(IP("10.4.252.0")) + source.randrange(2048), source.randint(22, 31)),
                strict=False,
            )
            for _ in range(source.randrange(12))
        ]
        assert list(free_subnets(small, taken)) == naive(small, taken)


def test_no_free_subnets() -> None:
    assert list(free_subnets(replace(OVERLAY, subnet_min=IP("10.5.9.0"),
                                     subnet_max=IP("10.5.8.0")), [])) == []  # fmt: skip
    assert list(free_subnets(OVERLAY, [N("10.0.0.0/8")])) == []


def test_the_largest_network_does_not_take_long() -> None:
    huge = Overlay(N("10.0.0.0/8"), 30, IP("10.0.0.4"), IP("10.255.255.252"), "vxlan")
    taken = [N("10.0.0.0/9"), *N("10.128.0.0/16").subnets(new_prefix=30)]
    assert next(free_subnets(huge, taken)) == N("10.129.0.0/30")


def test_a_key_alone_takes_a_subnet_unless_it_would_take_all() -> None:
    keys = ("10.5.30.0-24", "10.5.31.0-24&fd00::-64", "10.9.0.0-24", "hello", "10.0.0.0-8",
            "0.0.0.0-0&fd00::-64", "10.5.0.0-16", "10.5.64.0-18")  # fmt: skip
    entries = [Entry(FOLDER + key, b"garbage", 1) for key in keys]
    expected = [N("10.5.30.0/24"), N("10.5.31.0/24"), N("10.9.0.0/24"), N("10.5.64.0/18")]
    known: Readings = {}
    for _ in range(2):
        assert taken_subnets(entries, OVERLAY, known) == expected
        read_leases(entries, known)


@pytest.mark.parametrize(
    ("subnet", "fits"),
    [
        ("10.5.1.0/24", True), ("10.5.255.0/24", True), ("10.5.0.0/24", False),
        ("10.6.1.0/24", False), ("10.5.1.0/25", False),
    ],
)  # fmt: skip
def test_compatible(subnet: str, fits: bool) -> None:
    assert compatible(OVERLAY, N(subnet)) is fits


# --- files ---


def test_the_files_of_flannel(tmp_path: Path) -> None:
    env, options = tmp_path / "run" / "subnet.env", tmp_path / "docker_opts.env"
    write_subnet_env(env, OVERLAY, N("10.5.10.0/24"), 1450, ipmasq=False)
    assert env.read_text() == (
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.10.1/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    )
    assert env.stat().st_mode & 0o777 == 0o644
    assert read_subnet_file(env).subnet == N("10.5.10.0/24")
    before = env.stat().st_ino
    write_subnet_env(env, OVERLAY, N("10.5.11.0/24"), 1450, ipmasq=True)
    assert env.stat().st_ino != before
    assert [p.name for p in env.parent.iterdir()] == ["subnet.env"]
    write_docker_options(options, N("10.5.10.0/24"), 1450, ipmasq=True)
    assert options.read_text() == (
        'DOCKER_OPT_BIP="--bip=10.5.10.1/24"\nDOCKER_OPT_IPMASQ="--ip-masq=false"\n'
        'DOCKER_OPT_MTU="--mtu=1450"\n'
        'DOCKER_OPTS=" --bip=10.5.10.1/24 --ip-masq=false --mtu=1450"\n'
    )
    with pytest.raises(StoreError, match="cannot be written"):
        write_subnet_env(env / "x", OVERLAY, N("10.5.11.0/24"), 1450, ipmasq=True)
