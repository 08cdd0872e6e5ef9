"""The units where systemd runs: Docker does not wait for a service that is stopped or late."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.bed import wait_for
from tests.vm import Machine
from tests.vm.lab import Lab
from tests.vm.scene import Web, install, note

PROMISED_S = 15  # until `docker ps` answers; twice the usual where a processor is emulated
SERVICE, STANDIN = "docker-flannel.service", "docker-flannel-standin.service"
SOCKET = "/run/docker/plugins/flannel.sock"
# later than an emulated dockerd
LATE = "[Service]\nTimeoutStartSec=300\nExecStartPre=/bin/sleep 120\n"
STOPPED = ("journalctl", "--boot=-1", "--output=cat", "--grep=^Stopped", "_PID=1")


@pytest.fixture(scope="module")
def machine(lab: Lab, suite: str) -> Machine:
    """Return a machine with the package."""
    made = lab.machine("server", suite)
    install(made, suite)
    return made


@pytest.fixture(scope="module")
def web(lab: Lab, machine: Machine) -> Iterator[Web]:
    """Yield a container of ours; beside it is one on Docker's own network, called plain."""
    made = Web(lab, machine)
    yield made
    made.remove()


def running(machine: Machine) -> set[str]:
    return set(machine.docker("ps", "--format", "{{.Names}}").split())


def restart(machine: Machine) -> float:
    """Restart Docker; return after how many seconds `docker ps` answers."""
    began = time.monotonic()
    machine.run("systemctl", "restart", "docker")
    machine.docker("ps")
    return time.monotonic() - began


def active(machine: Machine, unit: str) -> int:
    """Return when a unit's start was finished, in microseconds of the machine's uptime."""
    return int(machine.run("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit).stdout)


def test_the_service_is_stopped_and_docker_restarts(machine: Machine, web: Web) -> None:
    usual = restart(machine)
    machine.run("systemctl", "stop", SERVICE)
    wait_for(lambda: machine.run("test", "-S", SOCKET, check=False).ok, "the stand-in")
    took = restart(machine)
    assert running(machine) == {"plain"}
    note(machine, "docker ps after a restart with the service and without", usual, took)
    assert took < max(PROMISED_S, 2 * usual)
    machine.run("systemctl", "start", SERVICE)
    web.answers()
    assert "started container web" in machine.docker("flannel", "status")


def test_the_service_is_late_when_the_machine_starts(machine: Machine, web: Web) -> None:
    folder = f"/etc/systemd/system/{SERVICE}.d"
    machine.run("mkdir", "-p", folder)
    machine.write(f"{folder}/late.conf", LATE)
    machine.reboot()
    docker, service = active(machine, "docker.service"), active(machine, SERVICE)
    standin = active(machine, STANDIN)
    note(machine, "dockerd after the stand-in", (docker - standin) / 1e6)
    note(machine, "docker-flannel after dockerd", (service - docker) / 1e6)
    assert standin < docker < service
    assert "plain" in running(machine)
    web.answers()
    assert "started container web" in machine.docker("flannel", "status")
    machine.run("rm", "-r", folder)
    machine.run("systemctl", "daemon-reload")


def test_docker_stops_before_the_service_when_the_machine_does(machine: Machine, web: Web) -> None:
    machine.reboot()
    web.answers()
    lines = machine.run(*STOPPED).stdout.splitlines()
    order = [unit for line in lines for unit in ("docker.service", SERVICE, STANDIN)
             if line.startswith(f"Stopped {unit}")]  # fmt: skip
    assert order[0] == "docker.service", lines
    assert sorted(order) == sorted(["docker.service", SERVICE, STANDIN]), lines
