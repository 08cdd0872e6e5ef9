"""The commands of the pages on real machines, from a bare Debian with Docker to the removal."""

from __future__ import annotations

import re
import time

import pytest

from tests import pages
from tests.vm import Machine
from tests.vm.lab import Lab
from tests.vm.scene import note, package

[COMPOSE] = pages.blocks("README.md", "Quick start", "yaml")


@pytest.fixture(scope="module")
def hosts(lab: Lab, suite: str) -> tuple[Machine, Machine]:
    """Return two machines with the package's file, Compose, and an image called nginx."""
    made = (lab.machine("first", suite), lab.machine("second", suite))
    for host in made:
        file = package(suite)
        host.put(file, f"/root/{file.name}")
        host.run("apt-get", "-qq", "--yes", "install", "docker-compose", limit_s=900)
        serve = "hostname > /www/index.html; exec httpd -f -p 80 -h /www"
        host.docker("create", "--name", "made", "box", "sh", "-c", serve)
        host.docker("commit", "made", "nginx")
        host.docker("rm", "made")
    return made


def follow(host: Machine, command: str) -> str:
    """Run a command in root's home, as its reader would, who says yes; return its output."""
    command = re.sub(r"^apt ", "apt --yes ", command)
    begin = time.monotonic()
    done = host.run("sh", "-ec", f"cd /root; {command}", limit_s=900)
    note(host, command.partition(" eyJ")[0][:60], time.monotonic() - begin)
    return done.stdout


def up(host: Machine) -> tuple[str, str]:
    """Start the README's stack; return the container's id and address."""
    host.run("mkdir", "-p", "/root/shop")
    host.write("/root/shop/docker-compose.yml", COMPOSE)
    old = host.run("which", "docker-compose", check=False).ok
    follow(host, f"cd shop; {'docker-compose' if old else 'docker compose'} up -d")
    web = host.docker("ps", "-qf", "name=web")
    where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return web, host.docker("inspect", "-f", where, web)


def test_two_commands_a_host(hosts: tuple[Machine, Machine]) -> None:
    first, second = hosts
    on_first, on_second, by_hand = pages.blocks("README.md", "Quick start")
    install, init = on_first.splitlines()
    follow(first, install)
    said = follow(first, init)
    [token] = re.findall(r"docker-flannel join (\S+)", said)
    for command in on_second.splitlines():
        follow(second, command.replace("TOKEN", token))
    assert re.findall(r"join (\S+)", follow(first, init)) == [token], "to repeat it is harmless"
    stacks = up(first), up(second)
    for host, (web, _), (_, other) in zip(hosts, stacks, reversed(stacks), strict=True):
        host.docker("exec", web, "ping", "-c", "1", "-w", "60", other)
        assert host.docker("exec", web, "wget", "-q", "-O", "-", f"http://{other}/") != web
    for command in by_hand.splitlines():
        shown = follow(first, command.replace("8080:80", "8081:80"))
    assert "problems   none" in shown


def test_check_settings_and_logs(hosts: tuple[Machine, Machine]) -> None:
    first = hosts[0]
    file = package_file(first)
    again, check = pages.commands("docs/install.md", "The package")
    assert again == f"apt install ./{file}"
    follow(first, check)
    for command in pages.commands("docs/settings.md", "Settings"):
        shown = follow(first, command)
    assert re.search(r"DOCKER_FLANNEL_LOG_LEVEL +debug +/etc/default/docker-flannel", shown)
    [logs] = pages.commands("docs/operation.md", "Logs")
    assert "repaired" not in follow(first, logs)
    web = first.docker("ps", "-qf", "name=web").split()
    for command in pages.commands("docs/install.md", "Upgrade and downgrade"):
        follow(first, command)
    assert first.docker("ps", "-qf", "name=web").split() == web


def package_file(host: Machine) -> str:
    """Return the package's file in root's home as the pages name it."""
    assert host.run("sh", "-c", "ls /root/docker-flannel_*.deb").stdout
    return "docker-flannel_*.deb"


def test_leave_and_remove(hosts: tuple[Machine, Machine]) -> None:
    first, second = hosts
    for host in reversed(hosts):
        host.docker("rm", "-f", *host.docker("ps", "-aq").split())
        host.docker("network", "prune", "-f")
    [leave] = pages.commands("docs/hosts.md", "Leave")
    assert "has left" in follow(second, leave)
    init, another = pages.commands("docs/hosts.md", "The first host")
    assert not first.run(*another.split(), check=False).ok, "there is a network already"
    [token] = re.findall(r"join (\S+)", follow(first, init))
    [join] = pages.commands("docs/hosts.md", "Every other host")
    follow(second, join.replace("TOKEN", token))
    for host in reversed(hosts):
        for command in pages.commands("docs/install.md", "Remove"):
            follow(host, command)
        assert not host.run("which", "docker-flannel", check=False).ok
        assert host.docker("run", "--rm", "box", "echo", "ran") == "ran"
