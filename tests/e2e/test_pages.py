"""The commands of the pages for users, run on a host as they stand there."""

from __future__ import annotations

import json
import sys

import pytest

from tests import pages
from tests.bed import Host, Result, wait_for
from tests.e2e.helpers import add_cli_plugin, docker_major, gets, inspect, status


@pytest.fixture(scope="module", autouse=True)
def reader(running: Host) -> None:
    """Prepare the host as its user finds it: the CLI plugin, and an nginx that answers."""
    add_cli_plugin(running)
    answer = "echo welcome > /www/index.html; exec httpd -f -p 80 -h /www"
    running.docker("create", "--name", "made", "box", "sh", "-c", answer)
    running.docker("commit", "made", "nginx")
    running.docker("rm", "made")


def follow(host: Host, command: str, *, check: bool = True) -> Result:
    """Run a command as its reader would; systemctl stands for what starts and stops the plugin."""
    match command.split():
        case ["systemctl", "stop", "docker-flannel"]:
            return host.run("true", check=host.stop_plugin() == 0)
        case ["systemctl", "start", "docker-flannel"]:
            host.start_plugin()
            return host.run("true")
    env = {**host.docker_env, "DOCKER_FLANNEL_STATE_DIR": str(host.state_dir),
           "PATH": f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}  # fmt: skip
    return host.run("sh", "-ec", command, env=env, check=check)


def test_the_first_network(host: Host) -> None:
    make, run, look = pages.blocks("README.md", "Quick start")[2].splitlines()
    follow(host, make)
    follow(host, run)
    wait_for(lambda: gets(host, "web", "http://127.0.0.1/") == "welcome", "nginx")
    assert host.reaches("http://127.0.0.1:8080/")
    assert "networks   1" in follow(host, look).stdout
    [ports] = pages.commands("docs/ports.md", "Published ports")
    assert "8080" in follow(host, ports).stdout
    for command in pages.commands("docs/troubleshooting.md", "Troubleshooting")[:1]:
        assert "problems   none" in follow(host, command).stdout


def test_networks_of_other_sizes(host: Host) -> None:
    [app] = pages.commands("docs/networks.md", "Networks")
    for command in (app, *pages.commands("docs/sizing.md", "Sizing")):
        follow(host, command)
    found = {name: inspect(host, "network", name)["IPAM"]["Config"][0]["Subnet"].split("/")[1]
             for name in ("app", "large", "small")}  # fmt: skip
    assert found == {"app": "26", "large": "24", "small": "29"}


def test_one_address_with_docker_28(host: Host) -> None:
    file = host.path("/etc/docker/daemon.json")
    before = file.read_text()
    show, write = pages.commands("docs/networks.md", "One address, with Docker 28 and later")
    assert "default-network-opts" in follow(host, show).stdout
    written = follow(host, write, check=False)
    if docker_major(host) < 28:
        assert "does not understand the setting" in written.stderr
        assert file.read_text() == before
    else:
        assert "default-network-opts" in json.loads(file.read_text())
        file.write_text(before)


def test_dockers_own_networks_from_the_lease(host: Host) -> None:
    [command] = pages.commands("docs/flanneld.md", "Without networks of the driver")
    assert f'"base": "{status(host)["lease"]["subnet"]}"' in follow(host, command).stdout


def test_a_backup_is_put_back(host: Host) -> None:
    [app] = pages.commands("docs/networks.md", "Networks")
    follow(host, app)
    known = status(host)["networks"]
    copy = host.folder / "copy"  # and not in the folder of this machine's root
    backup = [c.replace("/root/docker-flannel.backup", str(copy))
              for c in pages.commands("docs/operation.md", "Backup")]  # fmt: skip
    save, stop, restore, start = backup
    follow(host, save)
    follow(host, stop)
    for file in host.state_dir.glob("state.db*"):
        file.unlink()
    assert "restored" in follow(host, restore).stdout
    follow(host, start)
    assert status(host)["networks"] == known
    assert not status(host)["repaired"]
    copy.unlink()
