"""The service under the unit's own restrictions does all it is there for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed, Host, wait_for
from tests.bed.rootfs import PROJECT, shared
from tests.e2e.helpers import container, enter, inspect, network, pings, status, web

UNIT = PROJECT / "packaging/docker-flannel.service"
STATE = "/var/lib/docker-flannel"
CONFINE = (sys.executable, PROJECT / "tests/bed/confine.py", UNIT)
CONFIG = '{"Network": "10.9.0.0/16", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}'
REFUSED = re.compile("(?i)not permitted|permission denied|read-only|bad system call|cannot enable")


@pytest.fixture(scope="module")
def etcd(bed: Bed) -> str:
    """Return the URL of an etcd with a network."""
    node = bed.client("etcd")
    url = f"http://{node.address}:2379"
    urls = ("--listen-client-urls", url, "--advertise-client-urls", url)
    node.popen("etcd", "--data-dir", node.folder / "data", *urls)
    put = ("etcdctl", f"--endpoints={url}", "put", "/coreos.com/network/config", CONFIG)
    wait_for(lambda: node.run(*put, check=False, env={"ETCDCTL_API": "3"}).ok, "etcd")
    return url


def start(host: Host, firewall: str, etcd: str) -> None:
    """Start the plugin as the unit does."""
    kept = [path for path in shared() if path != Path("/tmp")]
    env = {
        "DOCKER_FLANNEL_STATE_DIR": STATE,
        "DOCKER_FLANNEL_FIREWALL": firewall,
        "FLANNELD_ETCD_ENDPOINTS": etcd,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    host.start_plugin(env, [*CONFINE, *kept, "--", sys.executable, "-m", "driver", "serve"])


@pytest.fixture(scope="module", params=["nft", "iptables"])
def confined(bed: Bed, etcd: str, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Return a host on which the plugin runs as the unit has it."""
    host = bed.host("h1" if request.param == "nft" else "h2")
    if request.param == "iptables":
        for name in ("iptables", "ip6tables"):
            host.run("update-alternatives", "--set", name, f"/usr/sbin/{name}-legacy")
    start(host, request.param, etcd)
    host.start_dockerd()
    host.load_image()
    wait_for(lambda: status(host)["phase"] == "held", "the lease")
    yield host
    host.stop_plugin()


def test_it_is_confined(confined: Host) -> None:
    shown = confined.path(f"/proc/{worker(confined)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in shown.splitlines())
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert int(fields["CapEff"], 16).bit_count() == 6


def worker(host: Host) -> int:
    """Return the number that the plugin's main process has inside."""
    return int(host.run("cat", f"{STATE}/lock").stdout.split()[1])


def test_containers_ports_and_sandboxes(confined: Host) -> None:
    network(confined, "app")
    web(confined, "web", "app", "-p", "80:80", "-p", "20000-20200:20000-20200")
    box = container(confined, "box", "app")
    assert pings(confined, "web", box)
    for url in ("http://127.0.0.1/", f"http://{confined.address}/"):
        wait_for(lambda: confined.reaches(url), url)
    confined.docker("network", "create", "-d", "flannel", "short")
    container(confined, "beside", "short")
    look = (*enter(confined, "beside"), "ip", "-o", "-4", "addr")
    wait_for(lambda: "inet 10.9." in confined.run(*look).stdout, "the lease address in a sandbox")
    assert confined.path("/run/flannel/subnet.env").is_file()
    assert "flannel.1" in confined.run("ip", "link").stdout
    confined.docker("restart", "-t", "0", "web")
    wait_for(lambda: confined.reaches("http://127.0.0.1/"), "the port again")
    assert inspect(confined, "container", "beside")["State"]["Running"]
    confined.docker("rm", "-f", "web", "box", "beside")
    confined.docker("network", "rm", "app", "short")


def test_nothing_was_refused(confined: Host) -> None:
    assert status(confined)["problems"] == []
    assert not REFUSED.search(confined.plugin_log())


def test_a_start_finds_all_as_it_was(confined: Host, etcd: str) -> None:
    """For that it may make a network namespace of its own."""
    firewall = status(confined)["firewall"].partition("-")[0]
    network(confined, "last")
    web(confined, "last", "last", "-p", "81:80")
    wait_for(lambda: status(confined)["problems"] == [], "all to be as it should be")
    confined.stop_plugin()
    before = confined.plugin_log().count(" pass: ")
    start(confined, firewall, etcd)
    told = [line for line in confined.plugin_log().splitlines() if " pass: " in line][before:]
    assert told == ["INFO driver.core.passes: pass: all as it should be"]
