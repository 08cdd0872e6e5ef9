"""The checks of a host: what each finds."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from driver.config import Config
from driver.flannel.etcd.settings import Endpoint
from driver.flannel.network_config import read_config
from driver.model.facts import External, Facts, Flanneld
from driver.model.preflight import BRIDGE, GUARDS, LIBNFTABLES, NF_TABLES, VXLAN, Preflight
from driver.setup.check import CHECKS, FAILED, NOTE, OK, Look, findings
from driver.setup.etcd_look import MemberLook

ETCD = {"FLANNELD_ETCD_ENDPOINTS": "http://192.0.2.1:2379"}
MEMBER = Endpoint("192.0.2.1", 2379, tls=False)
OVERLAY = read_config(
    '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7, "Port": 9}}'
)
HERE = External("eth0", IPv4Address("192.0.2.9"), 1500)


def nets(*texts: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, texts))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "proc/sys/net/ipv4"
    made.mkdir(parents=True)
    (made / "ip_forward").write_text("1\n")
    return tmp_path


def found(root: Path, environment: dict[str, str], **parts: Any) -> set[tuple[str, str, str]]:
    """Return what is not simply ok."""
    asked = "docker" in parts or "docker_fault" in parts
    parts = {"host": Preflight(), "docker": "" if asked else "24.0.0", **parts}
    every = list(findings(Look(Config.read({}, environment), root=root, **parts)))
    assert {name for name, _ in every} == set(CHECKS)
    ours = {(name, f.result, f.text) for name, f in every if f.text}
    return ours if asked else {f for f in ours if f[0] != "Docker"}


def one(root: Path, environment: dict[str, str], **parts: Any) -> tuple[str, str, str]:
    (finding,) = found(root, environment, **parts)
    return finding


def test_a_host_on_which_all_is_well(root: Path) -> None:
    assert found(root, {}, docker="28.5.2") == {
        ("Docker", OK, "Docker 28.5.2: see `docker flannel setup-daemon`")
    }
    members = (MemberLook(MEMBER, ahead_s=-0.5, overlay=OVERLAY),)
    assert found(root, ETCD, host=Preflight(external=HERE), members=members, docker="20.10.24") == {
        ("Docker", OK, "Docker 20.10.24"),
        ("interface", OK, "other hosts reach this one by eth0, 192.0.2.9, MTU 1500"),
        ("etcd", OK, "http://192.0.2.1:2379 answers"),
    }


@pytest.mark.parametrize(
    ("environment", "lacking", "missing", "what"),
    [
        ({}, BRIDGE, (), ("kernel", FAILED, "no bridge")),
        ({}, VXLAN, (), ("kernel", NOTE, "no vxlan")),
        ({}, GUARDS, (), ("kernel", NOTE, "published on 127.0.0.1")),
        ({}, NF_TABLES, (), ("firewall", NOTE, "iptables is used")),
        ({"DOCKER_FLANNEL_FIREWALL": "nft"}, NF_TABLES, (), ("firewall", FAILED, "no nf_tables")),
        ({}, LIBNFTABLES, (), ("firewall", FAILED, "libnftables is missing")),
        ({}, "", ("modprobe",), ("tools", NOTE, "modprobe is not there")),
    ],
)
def test_what_the_host_lacks(
    root: Path,
    environment: dict[str, str],
    lacking: str,
    missing: tuple[str, ...],
    what: tuple[str, str, str],
) -> None:
    host = Preflight(frozenset({lacking}))
    name, result, text = one(root, environment, host=host, missing=missing)
    assert (name, result) == what[:2]
    assert what[2] in text


@pytest.mark.parametrize(
    ("environment", "lacking"), [({}, {NF_TABLES}), ({"DOCKER_FLANNEL_FIREWALL": "iptables"}, ())]
)
def test_no_iptables_where_it_is_to_be_used(
    root: Path, environment: dict[str, str], lacking: Collection[str]
) -> None:
    host = Preflight(frozenset(lacking))
    said = found(root, environment, host=host, missing=("iptables",))
    assert (
        "firewall", FAILED, "iptables is to be used and is not there: `apt install iptables`"
    ) in said  # fmt: skip


def test_without_vxlan_no_overlay(root: Path) -> None:
    host = Preflight(frozenset({VXLAN}), external=HERE)
    assert ("kernel", FAILED) in {f[:2] for f in found(root, ETCD, host=host)}


@pytest.mark.parametrize(
    ("version", "result", "words"),
    [
        ("29.0.0", FAILED, "crashes when a container stops"),
        ("29.0.2-rc.1", FAILED, "update it to 29.0.3"),
        ("29.0.3", OK, "setup-daemon"),
        ("27.5.1", OK, "Docker 27.5.1"),
        ("19.03.15", FAILED, "too old"),
        ("dev", NOTE, "none that this check knows"),
    ],
)
def test_dockers_version(root: Path, version: str, result: str, words: str) -> None:
    name, how, text = one(root, {}, docker=version)
    assert (name, how) == ("Docker", result)
    assert words in text


def test_no_docker_is_a_note(root: Path) -> None:
    name, result, text = one(root, {}, docker_fault="Docker cannot be asked")
    assert (name, result) == ("Docker", NOTE)
    assert "run this check again" in text


def test_docker_and_the_plugin_compete_for_addresses(root: Path) -> None:
    subnets = list(zip(("bridge", "app"), nets("10.2.0.0/24", "172.18.0.0/16"), strict=True))
    facts = Facts(onlink=nets("10.2.0.0/24", "172.18.0.0/16"))
    said = found(root, {}, host=Preflight(facts=facts), subnets=subnets, docker="20.10.24")
    (text,) = [f[2] for f in said if f[0] == "subnets"]
    assert "Docker's network bridge has 10.2.0.0/24, inside 10.2.0.0/16" in text
    assert "--bip" in text


@pytest.mark.parametrize(
    ("environment", "facts", "result"),
    [
        (ETCD, Facts(onlink=nets("10.2.3.0/24"), lans=nets("10.2.3.0/24")), FAILED),
        ({}, Facts(onlink=nets("10.2.3.0/24"), lans=nets("10.2.3.0/24")), NOTE),
        (ETCD, Facts(routed=nets("10.2.0.0/15")), NOTE),  # as a VPN adds
        (ETCD, Facts(onlink=nets("10.0.0.0/8"), lans=nets("10.0.0.0/8")), ""),
        (ETCD, Facts(onlink=nets("192.168.0.0/16")), ""),
    ],
)
def test_prefixes_that_overlap(
    root: Path, environment: dict[str, str], facts: Facts, result: str
) -> None:
    said = found(root, environment, host=Preflight(facts=facts, external=HERE))
    assert [f[1] for f in said if f[0] == "subnets"] == [result] * bool(result)


def test_the_network_is_the_one_in_etcd(root: Path) -> None:
    facts = Facts(routed=nets("10.5.9.0/24"))
    members = (MemberLook(MEMBER, overlay=OVERLAY),)
    said = found(root, ETCD, host=Preflight(facts=facts, external=HERE), members=members)
    assert next(f[2] for f in said if f[0] == "subnets").startswith(
        "this host reaches 10.5.9.0/24, which overlaps 10.5.0.0/16: "
    )


@pytest.mark.parametrize(
    ("flanneld", "overlay", "results"),
    [
        (Flanneld(frozenset({("vx0", 1, 8472)})), None, [FAILED]),
        (Flanneld(frozenset({("flannel.1", 1, 8472)}), process=7), None, [NOTE]),
        (Flanneld(frozenset({("vx0", 2, 8472)})), None, []),
        (Flanneld(frozenset({("vx0", 1, 8472)})), OVERLAY, []),
        (Flanneld(frozenset({("vx0", 7, 9)})), OVERLAY, [FAILED]),
        (Flanneld(own=frozenset({("flannel.1", "02:00:00:00:00:01")})), None, []),
    ],
)
def test_a_device_with_our_vni_and_port(
    root: Path, flanneld: Flanneld, overlay: Any, results: list[str]
) -> None:
    members = (MemberLook(MEMBER, overlay=overlay),)
    host = Preflight(facts=Facts(flanneld=flanneld), external=HERE)
    said = found(root, ETCD, host=host, members=members)
    assert [f[1] for f in said if f[0] == "UDP port"] == results


def test_a_program_has_the_port(root: Path) -> None:
    name, result, text = one(root, {}, host=Preflight(port_taken=True))
    assert (name, result) == ("UDP port", FAILED)
    assert "`ss -ulpn sport = :8472` names it" in text


def test_etcd_and_its_clock(root: Path) -> None:
    other = Endpoint("192.0.2.2", 2379, tls=True)
    members = (MemberLook(MEMBER, ahead_s=-61.0), MemberLook(other, "it is not there"))
    said = found(root, ETCD, host=Preflight(external=HERE), members=members, docker="24.0.0")
    assert ("etcd", FAILED, "it is not there") in said
    assert ("etcd", NOTE, f"{MEMBER} has no network config: `docker-flannel init`") in said
    assert (
        "clock", NOTE, f"the clock of {MEMBER} is 61 s behind this host's: `timedatectl` says why"
    ) in said  # fmt: skip


def test_no_interface_to_the_other_hosts(root: Path) -> None:
    said = found(root, ETCD, host=Preflight(no_external="no default route"))
    assert ("interface", FAILED, "no default route") in said


def test_forwarding_that_nobody_turns_on(root: Path) -> None:
    (root / "proc/sys/net/ipv4/ip_forward").write_text("0\n")
    assert "forwarding" not in {f[0] for f in found(root, {})}, "the plugin does"
    said = found(root, {"DOCKER_FLANNEL_IP_FORWARD": "0"})
    assert ("forwarding", FAILED) in {f[:2] for f in said}


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_network_managers_that_would_take_the_interfaces(root: Path) -> None:
    write(root / "run/systemd/netif/state")
    write(root / "run/NetworkManager/x")
    write(root / "etc/systemd/network/10-all.network", "[Match]\nName=*\n")
    told = [f[2].split()[0] for f in sorted(found(root, {})) if f[0] == "network managers"]
    assert told == ["NetworkManager", "systemd-networkd"]
    write(root / "usr/lib/systemd/network/05-f.network", "[Match]\nName=fl-* flannel.*\n")
    write(root / "etc/NetworkManager/conf.d/f.conf", "unmanaged-devices=interface-name:fl-*\n")
    assert "network managers" not in {f[0] for f in found(root, {})}


def test_firewalls_of_the_host(root: Path) -> None:
    write(root / "etc/ufw/ufw.conf", "ENABLED=no\n")
    assert "host's firewall" not in {f[0] for f in found(root, {})}
    write(root / "etc/ufw/ufw.conf", "ENABLED=no\n#ENABLED=yes\n")
    assert "host's firewall" not in {f[0] for f in found(root, {})}
    (root / "etc/ufw/ufw.conf").write_bytes(b'# caf\xe9\nENABLED="Yes"\n')
    (root / "run/firewalld").mkdir(parents=True)
    members = (MemberLook(MEMBER, overlay=OVERLAY),)
    said = found(root, ETCD, host=Preflight(external=HERE), members=members)
    told = [f[2] for f in sorted(said) if f[0] == "host's firewall"]
    assert [text.split()[0] for text in told] == ["firewalld", "ufw"]
    assert all("9/udp`" in text for text in told), "the port that etcd names"
