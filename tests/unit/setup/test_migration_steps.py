"""Which steps lie ahead, and why one cannot be carried out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from driver.errors import Conflict
from driver.model.records import Lease
from driver.setup.migration.docker_files import DockerFiles
from driver.setup.migration.docker_steps import bip_for, bip_outside, release, share
from driver.setup.migration.found import Container, Device, Docker, Flanneld, Found
from driver.setup.migration.report import report
from driver.setup.migration.steps import replace as take_place
from driver.setup.migration.steps import steps

SUBNET = IPv4Network("10.2.1.0/24")
LEASE = Lease(IPv4Network("10.2.0.0/16"), SUBNET, 1450, "subnet-file")
DAEMON = Path("/etc/docker/daemon.json")
FILES = DockerFiles(DAEMON, '{"bip": "10.2.1.1/24"}')
WEB = Container("web", running=True, on_docker0=True, address=SUBNET[2])
TOOL = Container("tool", running=True, on_docker0=False, removed=True)
DOCKER = Docker(7, True, "10.2.1.1/24", (IPv4Interface("10.2.1.1/24"),), FILES, (WEB, TOOL))
SETTINGS = {"FLANNELD_ETCD_ENDPOINTS": "http://192.0.2.1:2379", "FLANNELD_ETCD_PASSWORD": "secret"}
STATUS: dict[str, Any] = {
    "lease": {"subnet": str(SUBNET), "source": "subnet-file"},
    "phase": "beside", "networks": [], "peers": [],
}  # fmt: skip
FOUND = Found(
    file=Path("/run/flannel/subnet.env"),
    lease=LEASE,
    why="",
    ipv6=False,
    flanneld=Flanneld(5, "flanneld.service", True, SETTINGS),
    docker=DOCKER,
    device=Device("flannel.1", "02:00:00:00:00:01", ours=False),
    routes=(("10.2.2.0/24", "via", "10.2.2.0", "dev", "flannel.1", "proto", "boot"),),
    rules={"iptables-nft": (("-t", "filter", "-X", "FLANNEL-FWD"),)},
    tables=("ip flannel-ipv4",),
    status=STATUS,
)
APART = replace(DOCKER, bridge=(IPv4Interface("172.17.0.1/16"),))
SHARED = replace(DOCKER, bridge=(IPv4Interface("10.2.1.1/26"),))


def containers(count: int) -> Found:
    many = tuple(replace(WEB, name=f"c{n}") for n in range(count))
    return replace(FOUND, docker=replace(DOCKER, containers=many))


@pytest.mark.parametrize(("count", "bip"), [(0, 26), (30, 26), (31, 25), (125, 25)])
def test_docker0_keeps_a_part_with_room_for_its_containers(count: int, bip: int) -> None:
    assert bip_for(containers(count)) == IPv4Interface(f"10.2.1.1/{bip}")


def test_too_many_containers() -> None:
    with pytest.raises(Conflict, match="126 containers are on docker0, and half of the lease has"):
        bip_for(containers(126))
    assert "move some to other networks first" in share(containers(126)).hindrance


@pytest.mark.parametrize("text", ["10.2.1.0/30", "10.2.1.0/31", "10.2.1.0/32"])
def test_a_lease_without_room_for_two_parts(text: str) -> None:
    subnet = IPv4Network(text)
    status = {**STATUS, "lease": {"subnet": text, "source": "subnet-file"}}
    docker = replace(DOCKER, bridge=(IPv4Interface((subnet[0], subnet.prefixlen)),))
    lease = replace(LEASE, subnet=subnet)
    step = share(replace(FOUND, lease=lease, docker=docker, status=status))
    assert step.hindrance.startswith(f"the lease {text} is too small to be shared")


def test_docker0_leaves_for_a_prefix_that_nobody_has() -> None:
    assert bip_outside(FOUND) == IPv4Interface("172.17.0.1/16")
    used = (IPv4Network("172.17.0.0/16"), IPv4Network("172.18.3.0/24"))
    assert bip_outside(replace(FOUND, used=used)) == IPv4Interface("172.19.0.1/16")
    with pytest.raises(Conflict, match=r"set bip in daemon.json yourself"):
        bip_outside(replace(FOUND, used=(IPv4Network("172.16.0.0/12"),)))


def test_share() -> None:
    step = share(FOUND)
    assert not step.done + step.hindrance
    assert step.changes == {DAEMON: '{\n  "bip": "10.2.1.1/26"\n}\n'}
    assert step.commands[-1] == ("systemctl", "restart", "docker.service")
    assert step.start == ("web",), "what --rm removes is not started again"
    assert any(e.startswith("tool will be gone") for e in step.effects)
    live = share(replace(FOUND, docker=replace(DOCKER, live_restore=True)))
    assert ("docker", "stop", "web", "tool") in live.commands
    unset = share(replace(FOUND, docker=replace(DOCKER, bip="", files=DockerFiles(DAEMON))))
    assert "own store: set bip to 10.2.1.1/26 in /etc/docker/daemon.json" in unset.hindrance
    assert share(replace(FOUND, docker=SHARED)).done
    assert share(replace(FOUND, docker=APART)).done
    both = replace(DOCKER, bridge=(*APART.bridge, *DOCKER.bridge))
    assert not share(replace(FOUND, docker=both)).done, "docker0 has more than one address"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lease": None, "status": None, "why": "no file"}, "no flannel lease is known: no file"),
        ({"docker": None}, "systemctl start docker.service"),
        ({"status": None}, "systemctl start docker-flannel.service"),
        ({"status": {**STATUS, "lease": None}}, "but this plugin's is none"),
        (
            {"docker": replace(DOCKER, bridge=(IPv4Interface("10.2.3.1/26"),))},
            "docker0 has 10.2.3.0/26 of flannel's network, but the lease is 10.2.1.0/24",
        ),
        ({"docker": replace(DOCKER, bip="", files=DockerFiles(DAEMON, "{,}"))}, "no JSON object"),
        ({"docker": replace(DOCKER, unit=False)}, "docker.service does not run dockerd"),
        ({"docker": replace(DOCKER, files=DockerFiles(DAEMON))}, "no file of docker.service sets"),
    ],
)
def test_when_docker0_cannot_change(changes: dict[str, Any], why: str) -> None:
    for step in (share, release):
        assert why in step(replace(FOUND, **changes)).hindrance


def test_release_waits_for_the_containers() -> None:
    step = release(replace(FOUND, docker=SHARED))
    assert step.hindrance.startswith("web would lose the lease address")
    assert step.commands, "with --force it is carried out all the same"
    moved = replace(SHARED, containers=(replace(WEB, on_docker0=False, address=None),))
    assert not release(replace(FOUND, docker=moved)).hindrance
    assert release(replace(FOUND, docker=APART)).done


def test_a_packages_unit_that_names_flanneld_is_a_hindrance() -> None:
    unit = Path("/lib/systemd/system/docker.service")
    files = DockerFiles(DAEMON, units={unit: "[Unit]\nWants=flanneld.service\n"})
    found = replace(FOUND, docker=replace(APART, bip="", files=files))
    for step in (release, take_place):
        assert step(found).hindrance.startswith(f"{unit} sets --bip or names flanneld, but")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"docker": SHARED}, "`docker-flannel migrate release` comes first"),
        ({"docker": APART, "ipv6": True}, "a lease for IPv6"),
        ({"docker": APART, "flanneld": Flanneld(5, "flanneld.service")}, "etcd is not known"),
        ({"docker": APART, "flanneld": Flanneld(5, "", settings=SETTINGS)}, "stop it yourself"),
        (
            {"docker": APART, "flanneld": Flanneld(
                5, "flanneld.service", settings={**SETTINGS, "FLANNELD_KUBE_SUBNET_MGR": "true"}
            )},
            "from Kubernetes",
        ),
    ],
)  # fmt: skip
def test_when_flanneld_cannot_be_replaced(changes: dict[str, Any], why: str) -> None:
    assert why in take_place(replace(FOUND, **changes)).hindrance


def test_replace() -> None:
    here = replace(FOUND, docker=APART, settings="DOCKER_FLANNEL_LEASE=subnet-file\n",
                   set_here={"DOCKER_FLANNEL_LEASE": "subnet-file"})  # fmt: skip
    step = take_place(here)
    assert not step.done + step.hindrance
    [text] = step.changes.values()
    assert text == (
        "DOCKER_FLANNEL_LEASE=auto\nFLANNELD_ETCD_ENDPOINTS=http://192.0.2.1:2379\n"
        "FLANNELD_ETCD_PASSWORD=secret\n"
    )
    assert [words[1:3] for words in step.commands] == [
        ("daemon-reload",), ("disable", "flanneld.service"), ("stop", "flanneld.service"),
        ("link", "set"), ("restart", "docker-flannel.service"),
    ]  # fmt: skip
    assert [words[0] for words in step.last] == ["ip", "iptables-nft", "nft"]
    status = {**STATUS, "lease": {"subnet": str(SUBNET), "source": "etcd"}, "phase": "held"}
    mine = Device("flannel.1", "02:00:00:00:00:01", ours=True)
    after = replace(here, lease=None, why="marked", flanneld=Flanneld(), device=mine, routes=(),
                    rules={}, tables=(), status=status)  # fmt: skip
    assert take_place(after).done == "the lease 10.2.1.0/24 is this plugin's"
    for left in ({"flanneld": Flanneld(5)}, {"rules": FOUND.rules}, {"device": FOUND.device}):
        assert not take_place(replace(after, **left)).done


def test_routes_past_the_device_go_one_by_one() -> None:
    straight = ("10.2.3.0/24", "via", "192.0.2.3", "dev", "eth0", "proto", "boot")
    both = replace(FOUND, docker=APART, routes=(*FOUND.routes, straight))
    assert [" ".join(words) for words in take_place(both).last[:2]] == [
        "ip route del 10.2.3.0/24 via 192.0.2.3 dev eth0 proto boot",
        "ip route flush dev flannel.1 proto boot",
    ]


def test_nothing_to_migrate() -> None:
    bare = replace(FOUND, lease=None, flanneld=Flanneld(), docker=None, device=None, rules={},
                   tables=())  # fmt: skip
    assert bare.nothing
    assert not FOUND.nothing
    for left in ({"lease": LEASE}, {"rules": FOUND.rules}, {"docker": SHARED, "status": STATUS}):
        assert not replace(bare, **left).nothing


def test_no_password_is_shown() -> None:
    text = report(FOUND, steps(replace(FOUND, docker=APART)))
    assert "FLANNELD_ETCD_PASSWORD=(hidden)" in text
    assert "secret" not in text
    for words in ("1. share", "2. Move your stacks", "3. release", "4. replace"):
        assert f"\n{words}" in text
