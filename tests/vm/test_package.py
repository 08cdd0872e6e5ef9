"""The package's life with containers running: upgrade, downgrade, removal, purge, taking over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bed import CommandError, Process
from tests.bed.rootfs import PROJECT
from tests.e2e.managed import PORT, more
from tests.vm import Machine
from tests.vm.lab import Lab
from tests.vm.scene import apt, install, package

PACKAGE = "docker-flannel"
SETTINGS = "/etc/default/docker-flannel"
STATE = "/var/lib/docker-flannel"
KEEP = "DOCKER_FLANNEL_KEEP_NETWORKS"
# what `make install` makes, of the package's own files: its Python has to be the machine's
AS_MADE_BY_MAKE = f"""
set -e
cp -a /usr/lib/docker-flannel /opt/docker-flannel
sed -i '1s|/usr/lib|/opt|' /opt/docker-flannel/bin/docker-flannel
mkdir -p /usr/local/lib/docker/cli-plugins
install -D -t /etc/systemd/network /usr/lib/systemd/network/05-docker-flannel.network
install -D -t /etc/NetworkManager/conf.d /usr/lib/NetworkManager/conf.d/10-docker-flannel.conf
for folder in /usr/local/bin /usr/local/lib/docker/cli-plugins; do
    ln -s /opt/docker-flannel/bin/docker-flannel $folder
done
cd /usr/lib/systemd/system
for unit in docker-flannel*.service; do
    sed 's|/usr/lib/docker-flannel/|/opt/docker-flannel/|g' $unit >/etc/systemd/system/$unit
done
apt-get -qq -y purge {PACKAGE}
systemctl daemon-reload
echo DOCKER_FLANNEL_LOG_LEVEL=debug >{SETTINGS}
chmod 600 {SETTINGS}
systemctl enable --now docker-flannel
"""


@pytest.fixture(scope="module")
def machine(lab: Lab, suite: str) -> Machine:
    """Return a machine with the package."""
    made = lab.machine("server", suite)
    bystander = ("run", "--detach", "--name", "before", "box", "sleep", "1000000")
    made.docker(*bystander)
    started = _started(made, "before")
    install(made, suite)
    assert _started(made, "before") == started, "what ran before the package came runs on"
    return made


@contextmanager
def conversation(lab: Lab, machine: Machine) -> Iterator[Process]:
    """Talk to a container by its published port, on one TCP connection, until the block ends."""
    create = ("network", "create", "-d", "flannel", "--ipam-driver", "flannel", "app")
    machine.docker(*create)
    echo = ("nc", "-ll", "-p", str(PORT), "-e", "cat")
    run = ("run", "--detach", "--name", "echo", "--network", "app", "-p", f"{PORT}:{PORT}")
    machine.docker(*run, "box", *echo)
    words = (sys.executable, "-m", "tests.e2e.managed", "talk", machine.address)
    process = lab.outside.popen(*words, cwd=PROJECT, log_name="talk")
    more(process)
    yield process
    more(process)
    process.kill()
    machine.docker("rm", "--force", "echo")
    machine.docker("network", "rm", "app")


def test_with_containers_running(lab: Lab, machine: Machine, suite: str, tmp_path: Path) -> None:
    newer = _variant(machine, package(suite), tmp_path, "9.9")
    with conversation(lab, machine) as talk:
        pid = _pid(machine)
        apt(machine, "install", newer)
        assert _version(machine).startswith("9.9")
        assert _pid(machine) != pid, "an upgrade restarts the service"
        more(talk)

        pid = _pid(machine)
        apt(machine, "install", "--allow-downgrades", f"/root/{package(suite).name}")
        assert not _version(machine).startswith("9.9")
        assert _pid(machine) != pid, "a downgrade, too"
        more(talk)

        for verb in ("remove", "purge"):
            with pytest.raises(CommandError, match="networks of this driver exist: 1, with 1"):
                apt(machine, verb, PACKAGE)
        assert _active(machine), "a refused removal stops nothing"
        more(talk)

        remove = ("apt-get", "-qq", "-y", "remove", PACKAGE)
        machine.run(*remove, env={KEEP: "1"}, limit_s=600)
        more(talk)
        apt(machine, "install", newer)
        assert "problems   none" in machine.docker("flannel", "status")
        assert machine.run("dpkg", "--verify", PACKAGE).stdout == "", "a start compiles nothing"
        more(talk)


def test_removal_keeps_settings_and_lease(machine: Machine, suite: str) -> None:
    machine.write(SETTINGS, "DOCKER_FLANNEL_NETWORK=10.77.0.0/16\n")
    machine.run("systemctl", "restart", PACKAGE)
    lease = _lease(machine)
    apt(machine, "remove", PACKAGE)
    assert _in_kernel(machine) == []
    assert not _active(machine)
    apt(machine, "install", f"/root/{package(suite).name}")
    assert machine.run("cat", SETTINGS).stdout == "DOCKER_FLANNEL_NETWORK=10.77.0.0/16\n"
    assert _lease(machine) == lease
    assert _active(machine)


def test_it_takes_over_from_make_install(lab: Lab, machine: Machine, suite: str) -> None:
    machine.run("sh", "-c", AS_MADE_BY_MAKE, limit_s=600)
    with conversation(lab, machine) as talk:
        apt(machine, "install", f"/root/{package(suite).name}")
        more(talk)
        unit = machine.run("systemctl", "show", "-P", "FragmentPath", PACKAGE).stdout
        assert unit.startswith(("/lib/", "/usr/lib/"))
        assert (
            "/usr/lib/docker-flannel/"
            in machine.run("cat", f"/proc/{_pid(machine)}/cmdline").stdout
        )
        assert machine.run("systemctl", "is-enabled", PACKAGE).stdout == "enabled\n"
        assert machine.run("cat", SETTINGS).stdout == "DOCKER_FLANNEL_LOG_LEVEL=debug\n"
        folders = ("/usr/local", "/etc/systemd", "/etc/NetworkManager")
        left = machine.run("find", *folders, "-name", "*docker-flannel*")
        wants = "/etc/systemd/system/{}.wants/docker-flannel{}.service"
        assert sorted(left.stdout.split()) == [
            wants.format("docker.service", "-standin"),
            wants.format("multi-user.target", "-standin"),
            wants.format("multi-user.target", ""),
        ]
    apt(machine, "purge", PACKAGE)
    for path in (STATE, SETTINGS, "/etc/docker-flannel", "/usr/lib/docker-flannel"):
        assert not machine.run("test", "-e", path, check=False).ok, path
    assert _in_kernel(machine) == []
    assert machine.docker("inspect", "-f", "{{.State.Running}}", "before") == "true"


def _variant(machine: Machine, file: Path, folder: Path, version: str) -> str:
    """Put the same package as another version into the machine; return its path there."""
    tree, made = folder / "tree", folder / f"{PACKAGE}_{version}.deb"
    subprocess.run(["dpkg-deb", "-R", file, tree], check=True)
    control = tree / "DEBIAN/control"
    text = control.read_text()
    control.write_text(text.replace("Version: ", f"Version: {version}+", 1))
    subprocess.run(["dpkg-deb", "-b", "-Znone", tree, made], check=True, capture_output=True)
    machine.put(made, f"/root/{made.name}")
    return f"/root/{made.name}"


def _started(machine: Machine, container: str) -> str:
    return machine.docker("inspect", "-f", "{{.State.StartedAt}}", container)


def _pid(machine: Machine) -> str:
    return machine.run("systemctl", "show", "-P", "MainPID", PACKAGE).stdout.strip()


def _active(machine: Machine) -> bool:
    return machine.run("systemctl", "is-active", PACKAGE, check=False).ok


def _version(machine: Machine) -> str:
    return machine.run("dpkg-query", "-W", "-f", "${Version}", PACKAGE).stdout


def _lease(machine: Machine) -> str:
    status = json.loads(machine.docker("flannel", "status", "--format", "json"))
    return str(status["lease"]["subnet"])


def _in_kernel(machine: Machine) -> list[str]:
    """Return lines of links, routes and rules that name something of ours."""
    ask = "ip link; ip route; nft list ruleset; iptables-save"
    lines = machine.run("sh", "-c", ask).stdout.lower().splitlines()
    return [line for line in lines if "flannel" in line or "fl-" in line or "proto 91" in line]
