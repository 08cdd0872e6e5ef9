"""The short form: install, first container, reboot, uninstall, on a bare Debian with Docker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm import Machine
from tests.vm.lab import Lab
from tests.vm.scene import Web, apt, install

SUITE = "bookworm"
# what changes on its own, or by any package
OF_OTHERS = (
    *("/var/cache/", "/var/log/", "/var/lib/docker/", "/var/lib/containerd/", "/var/lib/systemd/"),
    *("/var/lib/dpkg/", "/var/lib/apt/", "/root/", "/tmp/", "/var/tmp/"),
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(SUITE) as made:
        yield made


def test_install_first_container_reboot_uninstall(lab: Lab) -> None:
    machine = lab.machine("server", SUITE)
    before = _files(machine)
    install(machine, SUITE)
    assert machine.run("systemctl", "is-enabled", "docker-flannel").stdout == "enabled\n"
    status = machine.docker("flannel", "status")
    assert "phase      held" in status
    assert "problems   none" in status
    web = Web(lab, machine)
    web.comes_back()
    assert "problems   none" in machine.docker("flannel", "status")
    web.remove()
    apt(machine, "remove", "docker-flannel")
    assert machine.run("test", "-f", "/etc/default/docker-flannel").ok, "removal keeps settings"
    assert machine.run("test", "-d", "/var/lib/docker-flannel").ok, "and the state"
    apt(machine, "purge", "--autoremove", "docker-flannel")
    assert _files(machine) - before == set(), "nothing is left"
    assert before - _files(machine) == set(), "and nothing else was removed"
    assert _in_kernel(machine) == []
    assert machine.docker("run", "--rm", "box", "echo", "ran") == "ran"


def _files(machine: Machine) -> set[str]:
    listed = machine.run("find", "/", "-xdev", "-not", "-type", "d").stdout.splitlines()
    return {line for line in listed if not line.startswith(OF_OTHERS)}


def _in_kernel(machine: Machine) -> list[str]:
    """Return lines of links and rules that name something of ours."""
    ask = ("ip link; ip route; ip rule; nft list ruleset; iptables-save; ip6tables-save",)
    lines = machine.run("sh", "-c", *ask).stdout.lower().splitlines()
    return [line for line in lines if "flannel" in line or "fl-" in line or "0x2000000" in line]
