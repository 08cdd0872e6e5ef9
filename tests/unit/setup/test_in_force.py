"""What is told of the settings: in force, after a restart, not applied."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from driver.config import SETTINGS, Config
from driver.model.records import Lease, State, replace
from driver.setup import settings_file
from driver.setup.in_force import document
from driver.setup.sources import Sources
from tests.unit.sample import POOL

LEASE = Lease(IPv4Network("10.2.0.0/16"), IPv4Network("10.2.0.0/20"), 1500, "standalone")
UNUSED = State(LEASE)
USED = State(LEASE, pools={POOL.id: POOL})
ENDPOINTS = "FLANNELD_ETCD_ENDPOINTS"
ETCD = f"{ENDPOINTS}=http://192.0.2.1:2379\n"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "docker-flannel"
    monkeypatch.setattr(settings_file, "IN_ORDER", (tmp_path / "flanneld", path))
    return path


def started(file: Path, text: str, **more: str) -> Sources:
    """Return the sources of a service whose unit makes variables of the file."""
    file.write_text(text)
    return Sources.read({}, settings_file.read(file) | more)


def told(sources: Sources, state: State = UNUSED) -> dict[str, Any]:
    config = Config.read(sources.options, sources.variables)
    found = document(sources, (config, state))
    assert found["running"]
    assert [s["variable"] for s in found["settings"]] == [s.variable for s in SETTINGS]
    return {s["variable"]: s for s in found["settings"]} | {"problems": found["problems"]}


def test_what_is_set_is_in_effect(file: Path) -> None:
    found = told(started(file, ETCD, FLANNELD_IFACE="eth1"))
    assert found[ENDPOINTS] == {
        "variable": ENDPOINTS,
        "option": "--etcd-endpoints",
        "value": "http://192.0.2.1:2379",
        "from": str(file),
        "in_effect": True,
        "note": "",
    }
    assert (found["FLANNELD_IFACE"]["value"], found["FLANNELD_IFACE"]["from"]) == (
        "eth1",
        "environment",
    )
    assert found["DOCKER_FLANNEL_LEASE"]["from"] == "default"
    assert found["problems"] == []


def test_a_change_waits_for_a_restart(file: Path) -> None:
    running = started(file, f"{ETCD}FLANNELD_IFACE=eth0\nDOCKER_FLANNEL_FIREWALL=nft\n")
    file.write_text(f"{ETCD}FLANNELD_IFACE=eth1\nDOCKER_FLANNEL_IP_FORWARD=0\n")
    found = told(running)
    notes = {name: s["note"] for name, s in found.items() if name != "problems" and s["note"]}
    assert notes == {
        "FLANNELD_IFACE": f"from the next restart: eth1 ({file})",
        "DOCKER_FLANNEL_FIREWALL": "from the next restart: auto (default)",
        "DOCKER_FLANNEL_IP_FORWARD": f"from the next restart: 0 ({file})",
    }
    assert found["FLANNELD_IFACE"]["value"] == "eth0", "this is in force"
    assert [name for name in notes if found[name]["in_effect"]] == []
    assert found["problems"] == []
    again = told(Sources.read({}, settings_file.read(file)))
    assert not any(s["note"] for name, s in again.items() if name != "problems")


def test_a_variable_of_the_process_stays_over_the_file(file: Path) -> None:
    running = started(file, "FLANNELD_IFACE=eth0\n")
    by_hand = replace(running, environment={"FLANNELD_IFACE": "eth9"})
    file.write_text("FLANNELD_IFACE=eth1\n")
    assert told(by_hand)["FLANNELD_IFACE"]["note"] == ""


def test_no_secret_is_shown(file: Path) -> None:
    words = "FLANNELD_ETCD_USERNAME=me\nFLANNELD_ETCD_PASSWORD={}\n"
    running = started(file, ETCD + words.format("first"))
    file.write_text(ETCD + words.format("second"))
    found = told(running)
    assert found["FLANNELD_ETCD_PASSWORD"]["value"] == "(hidden)"
    assert found["FLANNELD_ETCD_PASSWORD"]["note"].startswith("from the next restart: (hidden)")
    assert "first" not in str(found)
    assert "second" not in str(found)
    file.write_text(ETCD)
    assert "restart: none (default)" in told(running)["FLANNELD_ETCD_PASSWORD"]["note"]


@pytest.mark.parametrize(
    ("text", "lease", "unmet"),
    [
        (ETCD, LEASE, {ENDPOINTS}),
        (f"{ETCD}DOCKER_FLANNEL_LEASE=etcd\n", LEASE, {"DOCKER_FLANNEL_LEASE"}),
        ("DOCKER_FLANNEL_LEASE=subnet-file\n", LEASE, {"DOCKER_FLANNEL_LEASE"}),
        ("", replace(LEASE, source="etcd"), {ENDPOINTS}),
        ("DOCKER_FLANNEL_SUBNET_LEN=24\n", LEASE, {"DOCKER_FLANNEL_SUBNET_LEN"}),
        ("DOCKER_FLANNEL_NETWORK=10.9.0.0/16\n", LEASE, {"DOCKER_FLANNEL_NETWORK"}),
        ("", LEASE, set()),
        (ETCD, replace(LEASE, source="etcd"), set()),
        (ETCD, replace(LEASE, source="subnet-file"), set()),
        ("DOCKER_FLANNEL_NETWORK=10.9.0.0/16\n", replace(LEASE, source="subnet-file"), set()),
        (f"{ETCD}DOCKER_FLANNEL_SUBNET_LEN=24\n", replace(LEASE, source="etcd"), set()),
    ],
)
def test_what_networks_keep_from_applying(
    file: Path, text: str, lease: Lease, unmet: set[str]
) -> None:
    running = started(file, text)
    found = told(running, replace(USED, lease=lease))
    assert {n for n, s in found.items() if n != "problems" and not s["in_effect"]} == unmet
    for name in unmet:
        words = f"networks use 10.2.0.0/20 of 10.2.0.0/16 from {lease.source}"
        assert found[name]["note"].startswith(words)
    found = told(running, State(lease))
    assert all(s["in_effect"] for n, s in found.items() if n != "problems"), "nothing is in use"


def test_without_a_service_nothing_is_in_effect(file: Path) -> None:
    found = document(started(file, ETCD))
    assert not found["running"]
    assert {s["in_effect"] for s in found["settings"]} == {None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DOCKER_FLANNEL_LEASE=zk\n", "would refuse all calls: --lease 'zk' is none of"),
        ("DOCKER_FLANNEL_NETWROK=x\n", "sets DOCKER_FLANNEL_NETWROK, which is no setting"),
        ("A=\0\n", "systemd does not read it"),
    ],
)
def test_what_is_wrong_with_the_files_is_told(file: Path, text: str, words: str) -> None:
    running = started(file, ETCD)
    file.write_text(text)
    (problem,) = told(running)["problems"]
    assert words in problem
    file.write_text("FLANNELD_IP_MASQ=true\nHTTP_PROXY=x\n")
    assert told(running)["problems"] == [], "others' variables are no matter of ours"
