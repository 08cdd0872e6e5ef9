"""What else configures a host's network: after a reboot the container is back and reachable."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import pages
from tests.vm import Machine
from tests.vm.lab import Lab
from tests.vm.scene import Web, apt, install

EVERYTHING = """[Match]
Name=*

[Network]
DHCP=ipv4

[Link]
RequiredForOnline=no
"""
ETH0 = """[Match]
Name=eth0

[Network]
Address={address}/24
Gateway={gateway}
"""


@pytest.fixture(scope="module")
def installed(lab: Lab, suite: str) -> Web:
    machine = lab.machine("server", suite)
    install(machine, suite)
    web = Web(lab, machine)
    machine.save("installed")
    return web


@pytest.fixture
def web(installed: Web) -> Web:
    """Return the web server as it was when it was made."""
    installed.machine.load("installed")
    return installed


def systemd_networkd(lab: Lab, machine: Machine) -> None:
    eth0 = ETH0.format(address=machine.address, gateway=lab.lan.gateway)
    machine.write("/etc/systemd/network/10-eth0.network", eth0)
    machine.write("/etc/systemd/network/99-everything.network", EVERYTHING)
    machine.run("rm", "/etc/network/interfaces.d/eth0")
    machine.run("systemctl", "enable", "systemd-networkd")


def network_manager(lab: Lab, machine: Machine) -> None:
    apt(machine, "install", "--no-install-recommends", "network-manager")
    machine.run("rm", "/etc/network/interfaces.d/eth0")
    add = ("nmcli", "connection", "add", "type", "ethernet", "ifname", "eth0", "ipv4.method")
    address = ("ipv4.addresses", f"{machine.address}/24", "ipv4.gateway", lab.lan.gateway)
    machine.run(*add, "manual", *address)


def ufw(_: Lab, machine: Machine) -> None:
    apt(machine, "install", "--no-install-recommends", "ufw")
    for command in pages.commands("docs/ports.md", "ufw"):
        machine.run(*command.split())
    machine.run("ufw", "--force", "enable")


def firewalld(_: Lab, machine: Machine) -> None:
    apt(machine, "install", "--no-install-recommends", "firewalld")
    for command in pages.commands("docs/ports.md", "firewalld"):
        machine.run(*command.split())


# how to have it on a host, what then runs, and a command that shows that it is at work
NEIGHBOURS: dict[str, tuple[Callable[[Lab, Machine], None], str, tuple[str, ...], str]] = {
    "systemd-networkd": (
        systemd_networkd,
        "systemd-networkd",
        ("networkctl", "--no-legend", "list", "eth0", "docker0"),
        "configur",  # configured, or configuring for as long as no DHCP server answers
    ),
    "NetworkManager": (
        network_manager,
        "NetworkManager",
        ("nmcli", "--terse", "--fields", "DEVICE,STATE", "device"),
        "eth0:connected",
    ),
    "ufw": (ufw, "ufw", ("ufw", "status"), "Status: active"),
    "firewalld": (firewalld, "firewalld", ("firewall-cmd", "--state"), "running"),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_back_after_a_reboot_beside(web: Web, lab: Lab, name: str) -> None:
    have, service, ask, shown = NEIGHBOURS[name]
    bridge = web.bridge()
    have(lab, web.machine)
    web.answers()
    web.comes_back(beside=name)
    assert shown in web.machine.run(*ask, check=False).stdout
    assert web.bridge() == bridge
    web.machine.run("systemctl", "restart", service, limit_s=300)
    web.answers()
    assert web.bridge() == bridge
