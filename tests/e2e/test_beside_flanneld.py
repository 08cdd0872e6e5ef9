"""The plugin on a host where a flanneld is: started beside it, and a flanneld that comes later."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from tests.bed import Host, Process, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.flanneld import DEVICE, FILE
from tests.e2e.helpers import FLANNEL, address, container, network, pings, status
from tests.e2e.outage import Traffic
from tests.e2e.overlay import LEASES, World, empty_world, mac, own

SENTENCE = "a flanneld on this host has its flannel lease, as the device flannel.1 shows"
ADVICE = "set DOCKER_FLANNEL_LEASE=subnet-file"
FLANNELDS: dict[str, Process] = {}  # by host


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Yield an etcd, h1 with a flanneld and a container on docker0, and h2 with the plugin."""
    with empty_world("vxlan") as made:
        h1, h2 = made.host("h1"), made.add("h2")
        made.populate(h2)
        flanneld(made, h1)
        bip = dict(line.split("=") for line in file(h1).split())["FLANNEL_SUBNET"]
        # half of the lease is docker0's
        h1.start_dockerd(bip=bip.replace("/24", "/25"), ip_masq=False, mtu=1450)
        h1.load_image()
        h1.docker("run", "-d", "--name", own(h1), "box", "sleep", "1000000")
        wait_for(lambda: pings(h1, own(h1), made.ips["h2"]), "the flanneld's container to reach h2")
        yield made


def flanneld(world: World, host: Host) -> None:
    """Start a flanneld; it is at work when peers are reachable."""
    argv = (sys.executable, "-m", "tests.e2e.flanneld", world.url)
    started = host.popen(*argv, cwd=PROJECT, log_name="flanneld")
    wait_for(lambda: "ready" in started.log(), "a flanneld")
    FLANNELDS[host.name] = started


def file(host: Host) -> str:
    return host.run("cat", FILE).stdout


def footprint(world: World, host: Host) -> tuple[object, ...]:
    """Return what a flanneld has made: its keys with their revisions, its file, device, entries."""
    kvs = json.loads(world.etcdctl("get", "--prefix", LEASES, "-w", "json").stdout)["kvs"]
    entries = [host.run(*argv).stdout for argv in (
        ("ip", "-d", "link", "show", DEVICE), ("ip", "-4", "addr", "show", DEVICE),
        ("ip", "neigh", "show", "dev", DEVICE, "nud", "permanent"),
        ("bridge", "fdb", "show", "dev", DEVICE), ("ip", "route", "show", "dev", DEVICE),
        ("stat", "-c", "%i %y", FILE),
    )]  # fmt: skip
    return kvs, file(host), entries


def start(world: World, host: Host, lease: str = "") -> None:
    env = {"FLANNELD_ETCD_ENDPOINTS": world.url, "DOCKER_FLANNEL_LOG_LEVEL": "debug"}
    host.start_plugin({**env, **({"DOCKER_FLANNEL_LEASE": lease} if lease else {})})


def test_a_live_flanneld_is_left_alone(world: World) -> None:
    h1, h2 = world.hosts
    before = footprint(world, h1)
    traffic = Traffic(h1, own(h1), world.ips["h2"], "0.1")
    start(world, h1, "etcd")
    for options in (FLANNEL, FLANNEL[:2]):
        refused = h1.docker("network", "create", *options, "app", check=False)
        assert SENTENCE in refused.stderr
        assert ADVICE in refused.stderr
    assert [p for p in status(h1)["problems"] if SENTENCE in p and ADVICE in p]
    assert footprint(world, h1) == before
    h1.stop_plugin()
    start(world, h1)
    wait_for(lambda: status(h1)["lease"], "the lease")
    said = status(h1)
    assert (said["lease"]["source"], said["phase"], said["problems"]) == (
        "subnet-file",
        "beside",
        [],
    )
    assert f"{SENTENCE}: it is used from {FILE}" in said["note"]
    block = network(h1, "app")
    assert block.subnet_of(IPv4Network(said["lease"]["subnet"]))
    ip = container(h1, "new", "app")
    assert IPv4Address(ip) in block
    wait_for(lambda: pings(h1, "new", world.ips["h2"]), "a new container to reach h2")
    assert pings(h2, own(h2), ip)
    h1.kill_plugin()
    start(world, h1)
    wait_for(lambda: status(h1)["lease"], "the lease")
    assert footprint(world, h1) == before
    traffic.end(may_lose=0)


def test_a_flanneld_that_is_gone_with_its_device_is_followed(world: World) -> None:
    h1, _ = world.hosts
    before = status(h1)["lease"]["subnet"]
    FLANNELDS[h1.name].kill()
    h1.run("ip", "link", "del", DEVICE)

    def taken_over() -> bool:
        h1.call("Plugin.Activate")  # which asks for a pass
        return bool(status(h1)["phase"] == "held")

    wait_for(taken_over, "the plugin to have the lease")
    said = status(h1)
    assert (said["lease"]["source"], said["lease"]["subnet"]) == ("etcd", before)
    assert (said["note"], said["problems"]) == ("", [])
    value = json.loads(world.etcdctl("get", "--print-value-only", world.key(h1)).stdout)
    assert value["BackendData"]["VtepMAC"] == mac(h1, DEVICE)
    wait_for(lambda: pings(h1, "new", world.ips["h2"]), "the container to reach h2")
    assert pings(h1, own(h1), world.ips["h2"]), "and that on docker0"


def test_a_flanneld_that_comes_later_is_named_and_finds_all_as_it_was(world: World) -> None:
    h1, h2 = world.hosts
    ip, device = address(h1, own(h1), "bridge"), mac(h2, DEVICE)
    traffic = Traffic(h2, own(h2), ip, "0.1")
    flanneld(world, h2)
    keys = footprint(world, h2)[0]
    wait_for(lambda: problem(h2, "a flanneld runs beside this plugin"), "the flanneld to be named")
    assert status(h2)["phase"] == "beside"
    h2.stop_plugin()
    start(world, h2, "subnet-file")
    wait_for(lambda: status(h2)["lease"]["source"] == "subnet-file", "the lease from the file")
    assert not problem(h2, "")
    network(h2, "more")
    assert mac(h2, DEVICE) == device
    assert footprint(world, h2)[0] == keys
    traffic.end(may_lose=0)


def problem(host: Host, words: str) -> bool:
    return any(words in told for told in status(host)["problems"])
