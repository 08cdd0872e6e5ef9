"""dockerd starts while the plugin is away: it is not held up, and what it gave up on runs later."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from driver.docker.given_up import AGAIN_S, LOOKS
from driver.standin import AWAY, READY_S
from tests.bed import Bed, Host, Process, cgroups, unixhttp, wait_for
from tests.bed.host import PLUGIN_SOCKET
from tests.bed.rootfs import PROJECT, shared
from tests.e2e.helpers import address, container, network, status

UNIT = PROJECT / "packaging/docker-flannel-standin.service"
CONFINE = (sys.executable, PROJECT / "tests/bed/confine.py", UNIT)
STANDIN = (sys.executable, "-I", "-S", PROJECT / "driver/standin.py")
PROMISED_S = 15  # until `docker ps` answers
NETWORKS = 8
WITHOUT_S = 300  # without the stand-in, it may take minutes
FORGOTTEN_S = 150  # after two passes
BLOCK = IPv4Network("10.2.0.0/26")
LIBRARY = "libnftables.so.1"


@pytest.fixture
def machine(bed: Bed) -> Iterator[Host]:
    """Return a machine with containers of all kinds."""
    made = bed.host(f"m{len(bed.nodes)}")
    made.start_plugin()
    made.start_dockerd()
    made.load_image()
    yield made
    made.power_off()


def populate(host: Host, networks: int = 1) -> None:
    """Make networks with a container of each restart policy, and containers beside them."""
    for number in range(networks):
        network(host, f"n{number}")
        container(host, f"c{number}", f"n{number}", "--restart", "always")
    for policy in ("unless-stopped", "on-failure", "no"):
        container(host, policy, "n0", "--restart", policy)
    container(host, "stopped", "n0", "--restart", "unless-stopped")
    host.docker("stop", "-t", "0", "stopped")
    plain(host)


def one(host: Host) -> None:
    """Make a network with a container, and one beside them."""
    network(host, "n0")
    container(host, "c0", "n0", "--restart", "always")
    plain(host)


def plain(host: Host) -> None:
    """Start a container on a network of Docker's own."""
    host.docker("network", "create", "other")
    container(host, "plain", "other", "--restart", "always")


@contextmanager
def standing_in(host: Host) -> Iterator[Process]:
    """Run the stand-in as its unit does."""
    kept = [path for path in shared() if path != Path("/tmp")]
    process = host.popen(*CONFINE, *kept, "--", *STANDIN, log_name="standin")
    yield process
    process.stop()


def begin_dockerd(host: Host) -> None:
    """Start dockerd, and do not wait for it."""
    host.run("rm", "-f", "/run/docker.pid")
    bed, own = host.cgroup
    command = [*cgroups.joining(bed, f"{own}/dockerd"), "dockerd"]
    host.dockerd = host.popen(*command, log_name="dockerd")


def boot_dockerd(host: Host, limit_s: float = PROMISED_S) -> None:
    """Start dockerd; `docker ps` has to answer within the limit."""
    began = time.monotonic()
    begin_dockerd(host)
    wait_for(lambda: host.docker("ps", check=False).ok, "dockerd", limit_s)
    assert time.monotonic() - began < limit_s


def states(host: Host) -> dict[str, dict[str, Any]]:
    """Return the state of each container by its name."""
    ids = host.docker("ps", "-aq").stdout.split()
    found = json.loads(host.docker("container", "inspect", *ids).stdout)
    return {made["Name"].removeprefix("/"): made["State"] for made in found}


def given_up(host: Host) -> set[str]:
    """Return the containers whose start failed and left that error."""
    return {name for name, state in states(host).items() if state["Error"]}


def running(host: Host) -> set[str]:
    return {name for name, state in states(host).items() if state["Running"]}


def all_came(host: Host, names: set[str]) -> None:
    """See that these containers and no others come up, and that this is told."""
    wait_for(lambda: running(host) == names | {"plain"}, f"{names} to run, with {states(host)}")
    whats = [str(repair["what"]) for repair in status(host)["repaired"]]
    told = {name for name in names if any(f"started container {name}:" in w for w in whats)}
    assert told == names
    assert f"started container {sorted(names)[0]}: it had failed" in host.plugin_log()


def stands_in(host: Host) -> None:
    """Wait until systemd would start dockerd."""
    wait_for(host.path(PLUGIN_SOCKET).exists, "the stand-in", 6 * READY_S)


def test_many_networks_and_a_plugin_that_comes_late(machine: Host) -> None:
    populate(machine, NETWORKS)
    missing = {f"c{number}" for number in range(NETWORKS)} | {"unless-stopped", "on-failure"}
    machine.reboot()
    with standing_in(machine):
        stands_in(machine)
        boot_dockerd(machine)
        wait_for(lambda: given_up(machine) == missing, "Docker to give up")
        assert running(machine) == {"plain"}
        assert all(AWAY in states(machine)[name]["Error"] for name in missing)
        refused = machine.docker("start", "no", check=False)
        assert "start it with `systemctl start docker-flannel`" in refused.stderr
        machine.start_plugin()
        all_came(machine, missing)
        wait_for(lambda: not status(machine)["problems"], "all to be well")


def test_what_docker_stopped_without_the_plugin_has_its_place_again(machine: Host) -> None:
    network(machine, "n0", "--subnet", str(BLOCK))
    always = ("--restart", "always", "-p")
    container(machine, "named", "n0", *always, "8080:80", "--ip", str(BLOCK[10]))
    container(machine, "other", "n0", *always, "8081:80")
    plain(machine)
    with standing_in(machine):
        machine.stop_plugin()
        stands_in(machine)
        machine.stop_dockerd()
        boot_dockerd(machine)
        wait_for(lambda: given_up(machine) == {"named", "other"}, "Docker to give up")
        machine.start_plugin()
        all_came(machine, {"named", "other"})
    assert address(machine, "named", "n0") == str(BLOCK[10])
    ports = [port for end in status(machine)["endpoints"] for port in end["ports"]]
    assert sorted(port.partition("->")[0] for port in ports) == ["0.0.0.0:8080", "0.0.0.0:8081"]


@pytest.mark.parametrize("stale", [False, True], ids=["no socket", "a socket nobody serves"])
def test_without_the_stand_in(machine: Host, stale: bool) -> None:
    one(machine)
    machine.stop_dockerd()
    machine.kill_plugin()
    if not stale:
        machine.path(PLUGIN_SOCKET).unlink()
    boot_dockerd(machine, WITHOUT_S)
    wait_for(lambda: given_up(machine) == {"c0"}, "Docker to give up", WITHOUT_S)
    machine.start_plugin()
    all_came(machine, {"c0"})


def test_a_plugin_that_is_killed_while_dockerd_starts(machine: Host) -> None:
    populate(machine)
    machine.reboot()
    with standing_in(machine):
        machine.start_plugin({"DOCKER_FLANNEL_LOG_LEVEL": "debug"})
        begin_dockerd(machine)
        call = "call=NetworkDriver.GetCapabilities"
        wait_for(lambda: call in machine.plugin_log(), "dockerd's first call")
        machine.kill_plugin()
        wait_for(lambda: machine.docker("ps", check=False).ok, "dockerd")
        machine.start_plugin()
        missing = {"c0", "unless-stopped", "on-failure"}
        wait_for(lambda: running(machine) == missing | {"plain"}, "all to run")


def test_a_plugin_that_cannot_work_and_then_can(machine: Host) -> None:
    populate(machine)
    machine.reboot()
    listed = machine.run("sh", "-c", f"ldconfig -p | grep {LIBRARY}").stdout.split()
    library = str(Path(listed[-1]).resolve())
    machine.run("mount", "--bind", "/dev/null", library)
    machine.start_plugin()
    boot_dockerd(machine)
    wait_for(lambda: len(given_up(machine)) == 3, "Docker to give up")
    machine.run("umount", library)
    all_came(machine, {"c0", "unless-stopped", "on-failure"})


def test_a_container_that_fails_for_its_own_reason(machine: Host) -> None:
    one(machine)
    container(machine, "broken", "n0", "--restart", "always", "-p", "8080:80")
    machine.reboot()
    machine.serve("thief", 8080)
    with standing_in(machine):
        stands_in(machine)
        boot_dockerd(machine)
        wait_for(lambda: given_up(machine) == {"c0", "broken"}, "Docker to give up")
        machine.start_plugin()
        all_came(machine, {"c0"})
        wait_for(lambda: "8080 failed" in states(machine)["broken"]["Error"], "the other reason")
        sleep_s = LOOKS * AGAIN_S  # and it is looked for again meanwhile
        machine.run("sleep", str(sleep_s))
        assert machine.plugin_log().count("container broken does not start: ") == 1


def test_docker_stops_containers_at_once_without_the_plugin(machine: Host) -> None:
    populate(machine)
    with standing_in(machine):
        machine.stop_plugin()
        stands_in(machine)
        began = time.monotonic()
        machine.docker("stop", "-t", "0", "c0", "no")
        assert time.monotonic() - began < PROMISED_S
        machine.start_plugin()
        socket = machine.path(PLUGIN_SOCKET)
        wait_for(lambda: unixhttp.answers(socket, "GET", "/status"), "the plugin")
        wait_for(lambda: len(status(machine)["endpoints"]) == 2, "it to forget them", FORGOTTEN_S)
        assert running(machine) == {"plain", "unless-stopped", "on-failure"}
