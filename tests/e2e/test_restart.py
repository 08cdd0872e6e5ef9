"""The plugin, dockerd and the whole machine stop and start while containers are there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Host, Node, assert_no_leaks, wait_for
from tests.bed.host import PLUGIN_SOCKET
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import (
    SERVE,
    address,
    container,
    inspect,
    pings,
    status,
    switch_off_and_on,
    web,
)
from tests.e2e.leaving import BRIDGE, MAY_DIFFER, as_it_was, baseline

BIND = "import socket; s = socket.socket(); s.bind(('', {port}))"
Words = tuple[str, ...]
IPAMS: tuple[Words, ...] = (("--ipam-driver", "flannel"), ("--subnet", "10.2.8.0/24"))  # Docker's
PASS_S = 90  # the passes come every half minute


@pytest.fixture
def host(running: Host) -> Iterator[Host]:
    """Yield the running host; the test has to leave it as it was, but for dockerd."""
    with as_it_was(running) as given:
        yield given


def port_is_held(host: Host, port: int) -> bool:
    """Whether no program on the host can have a port."""
    return not host.run(sys.executable, "-c", BIND.format(port=port), check=False).ok


def url(host: Host, port: int = 8080) -> str:
    return f"http://{host.address}:{port}/"


def answers(host: Host, visitor: Node, name: str = "web", port: int = 8080) -> bool:
    """Whether a published port leads to its container."""
    return visitor.reaches(url(host, port)) and visitor.fetch(url(host, port)).strip() == name


def start_two(host: Host, visitor: Node, *options: str, ipam: Words = IPAMS[0]) -> None:
    """Start a web server with a published port, and a neighbour."""
    host.docker("network", "create", "-d", "flannel", *ipam, "app")
    web(host, "web", "app", "-p", "8080:80", *options)
    container(host, "peer", "app", *options)
    wait_for(lambda: answers(host, visitor), "the port")


def all_is_well(host: Host, visitor: Node) -> None:
    """The old containers and their port work, and so does a new one."""
    wait_for(lambda: answers(host, visitor), "the port of the old container")
    assert pings(host, "peer", "web")
    assert port_is_held(host, 8080)
    taken = {address(host, name, "app") for name in ("web", "peer")}
    new = [web(host, f"new{n}", "app", "-p", f"808{n}:80") for n in (1, 2)]
    assert len(taken | set(new)) == 4, "an address was given twice"
    for n in (1, 2):
        wait_for(lambda: answers(host, visitor, f"new{n}", 8080 + n), "a new container's port")
        assert pings(host, "peer", f"new{n}")
    assert {e["address"].partition("/")[0] for e in status(host)["endpoints"]} == taken | set(new)
    host.docker("rm", "-f", "new1", "new2")


def goes_on_without_plugin(host: Host, visitor: Node) -> None:
    """What runs does not need the plugin."""
    assert not host.plugin_pids()
    assert answers(host, visitor)
    assert pings(host, "web", "peer")
    assert pings(host, "web", "192.0.2.1")
    assert "docker_flannel" in host.run("nft", "list", "tables").stdout
    assert host.run("ip", "-o", "link", "show", "type", "veth").stdout.count(": flh") == 2


def test_the_plugin_stops_and_starts(host: Host, visitor: Node) -> None:
    start_two(host, visitor)
    assert host.stop_plugin() == 0
    goes_on_without_plugin(host, visitor)
    assert not host.path(PLUGIN_SOCKET).exists()
    assert not port_is_held(host, 8080)
    host.start_plugin()
    assert host.path(PLUGIN_SOCKET).stat().st_mode & 0o7777 == 0o600
    all_is_well(host, visitor)


def test_the_plugin_is_killed_and_started(host: Host, visitor: Node) -> None:
    start_two(host, visitor)
    host.kill_plugin()
    goes_on_without_plugin(host, visitor)
    assert host.path(PLUGIN_SOCKET).is_socket(), "a stale file"
    host.start_plugin()
    assert host.path(PLUGIN_SOCKET).stat().st_mode & 0o7777 == 0o600
    all_is_well(host, visitor)


def test_the_worker_is_killed(host: Host, visitor: Node) -> None:
    start_two(host, visitor)
    assert host.plugin is not None
    main = host.plugin.pid
    [worker] = set(host.plugin_pids()) - {main}
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in host.plugin_pids(), "the worker to end")
    wait_for(lambda: len(host.plugin_pids()) == 2, "a new worker")
    assert main in host.plugin_pids()
    assert answers(host, visitor)
    all_is_well(host, visitor)


def test_a_second_instance_is_refused(host: Host, visitor: Node, tmp_path: Path) -> None:
    start_two(host, visitor)

    def refusal(socket: str, state: Path) -> str:
        options = ("--socket", socket, "--state-dir", state)
        result = host.run(*SERVE, *options, cwd=PROJECT, check=False)
        assert result.code == 69
        assert result.stderr.count("\n") == 1, "one sentence"
        return result.stderr

    said = refusal("/run/other.sock", host.state_dir)
    assert f"another docker-flannel works on {host.state_dir}; stop it first" in said
    assert not host.path("/run/other.sock").exists()
    said = refusal(PLUGIN_SOCKET, tmp_path)
    assert f"another process serves {PLUGIN_SOCKET}; stop it first" in said
    all_is_well(host, visitor)


def test_a_port_that_was_taken_meanwhile(host: Host, visitor: Node) -> None:
    start_two(host, visitor)
    host.stop_plugin()
    thief = host.serve("thief", 8080)
    host.start_plugin()
    assert any("Bind for 0.0.0.0:8080 failed" in p for p in status(host)["problems"])
    assert answers(host, visitor), "the mapping is kept"
    thief.kill()
    wait_for(lambda: not status(host)["problems"], "the port to be held again", PASS_S)
    all_is_well(host, visitor)
    assert any("port socket" in r["what"] for r in status(host)["repaired"])


def test_dockerd_restarts_with_living_containers(host: Host, visitor: Node) -> None:
    host.stop_dockerd()
    host.start_dockerd(live_restore=True)
    try:
        start_two(host, visitor)
        addresses = [address(host, name, "app") for name in ("web", "peer")]
        for end in (host.stop_dockerd, host.kill_dockerd):
            end()
            assert answers(host, visitor)
            host.restart_dockerd()
            assert [address(host, name, "app") for name in ("web", "peer")] == addresses
            all_is_well(host, visitor)
        host.docker("restart", "web")
        all_is_well(host, visitor)
        host.docker("rm", "-f", "web", "peer")
        host.docker("network", "rm", "app")
    finally:
        host.stop_dockerd()
        host.start_dockerd()


@pytest.mark.parametrize("ipam", IPAMS)
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_dockerd_restarts_and_its_containers_with_it(
    host: Host, visitor: Node, how: str, ipam: Words
) -> None:
    start_two(host, visitor, "--restart", "always", ipam=ipam)
    began = inspect(host, "container", "web")["State"]["StartedAt"]
    if how == "killed":
        host.kill_dockerd()
    host.restart_dockerd()
    wait_for(lambda: len(host.docker("ps", "-q").stdout.split()) == 2, "the containers")
    assert inspect(host, "container", "web")["State"]["StartedAt"] != began
    all_is_well(host, visitor)


def test_dockerd_restarts_and_its_containers_are_started_by_hand(host: Host, visitor: Node) -> None:
    start_two(host, visitor)
    host.kill_dockerd()
    host.restart_dockerd()
    assert host.docker("ps", "-q").stdout == ""
    host.docker("start", "web", "peer")
    all_is_well(host, visitor)


def test_the_machine_restarts(machine: Host, visitor: Node) -> None:
    start_two(machine, visitor)
    switch_off_and_on(machine, visitor)
    machine.docker("start", "web", "peer")
    all_is_well(machine, visitor)
    before = baseline(machine)
    switch_off_and_on(machine, visitor)
    machine.docker("start", "web", "peer")
    all_is_well(machine, visitor)
    moved = ("row: endpoint/*", "row: hold/*", "row: pool/*", "link: flh*", "nft: element *")
    assert_no_leaks(machine, before, ignore=(*MAY_DIFFER, BRIDGE, *moved))
    machine.docker("rm", "-f", "web", "peer")
    machine.docker("network", "rm", "app")
    wait_for(lambda: not status(machine)["endpoints"], "the old endpoints to go")


@pytest.mark.parametrize("ipam", IPAMS)
def test_the_machine_restarts_and_its_containers_with_it(
    machine: Host, visitor: Node, ipam: Words
) -> None:
    start_two(machine, visitor, "--restart", "always", ipam=ipam)
    switch_off_and_on(machine, visitor)
    all_is_well(machine, visitor)
    machine.docker("rm", "-f", "web", "peer")
    machine.docker("network", "rm", "app")
    wait_for(lambda: not status(machine)["endpoints"], "the old endpoints to go")
