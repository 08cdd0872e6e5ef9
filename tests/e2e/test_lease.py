"""The lease from a file of flanneld's, and a state that cannot be used. Hosts of their own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed, Host, wait_for
from tests.e2e.helpers import FLANNEL, container, inside, network, pings, status

FILE = "/run/flannel/subnet.env"
GOOD = """\
FLANNEL_NETWORK=10.5.0.0/16
FLANNEL_SUBNET=10.5.34.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


@pytest.fixture
def fresh(bed: Bed) -> Iterator[Host]:
    """Yield a host with dockerd and no plugin, switched off afterwards."""
    host = bed.host(f"f{len(bed.nodes)}")
    host.start_dockerd()
    host.load_image()
    host.run("mkdir", "-p", str(Path(FILE).parent))
    yield host
    host.power_off()


def write(host: Host, text: str) -> None:
    """Put the lease file in place as flanneld does, by a rename."""
    host.run("sh", "-c", f"cat > {FILE}.new && mv {FILE}.new {FILE}", input=text)


def test_a_lease_file_that_comes_changes_and_breaks(fresh: Host) -> None:
    fresh.start_plugin({"DOCKER_FLANNEL_LEASE": "subnet-file"})
    assert status(fresh)["problems"] == [f"lease file {FILE} is not there; start flanneld"]
    refused = fresh.docker("network", "create", *FLANNEL, "early", check=False)
    assert "this host has no flannel lease yet" in refused.stderr
    write(fresh, GOOD)
    wait_for(lambda: status(fresh)["lease"], "the lease")
    assert status(fresh)["lease"]["subnet"] == "10.5.34.0/24"
    assert str(network(fresh, "app")) == "10.5.34.0/27"
    one = container(fresh, "one", "app")
    container(fresh, "two", "app")
    assert one.startswith("10.5.34.")
    assert "mtu 1450" in inside(fresh, "one", "ip", "link", "show", "eth0").stdout
    for broken, words in (
        ("FLANNEL_NETWORK\n", f"lease file {FILE} line 1 is not NAME=VALUE"),
        (GOOD.replace("10.5.34.1/24", "10.5.34.1/99"), "has a bad value"),
        (GOOD.replace("FLANNEL_MTU=1450\n", ""), "has no line FLANNEL_MTU="),
        (GOOD.replace("1450", "1"), "FLANNEL_MTU 1 is not from 576 to 65535"),
    ):
        write(fresh, broken)
        wait_for(lambda: any(words in p for p in status(fresh)["problems"]), words)
        assert status(fresh)["lease"]["subnet"] == "10.5.34.0/24", "what was known is kept"
        assert pings(fresh, "one", "two")
    write(fresh, GOOD.replace("10.5.34.1/24", "10.5.77.1/24"))
    wait_for(lambda: status(fresh)["lease"]["subnet"] == "10.5.77.0/24", "the new lease")
    assert any(
        "10.5.34.0/27, outside the lease 10.5.77.0/24" in p for p in status(fresh)["problems"]
    )
    refused = fresh.docker("run", "--rm", "--network", "app", "box", "true", check=False)
    assert "the lease has moved: make the network anew" in refused.stderr
    assert pings(fresh, "one", "two"), "running containers are left alone"
    assert str(network(fresh, "new")).startswith("10.5.77.")


def test_auto_takes_the_file_only_while_no_network_exists(fresh: Host) -> None:
    fresh.start_plugin()
    assert status(fresh)["lease"]["source"] == "standalone"
    network(fresh, "app")
    write(fresh, GOOD)
    fresh.stop_plugin()
    fresh.start_plugin()
    assert status(fresh)["lease"]["source"] == "standalone"
    fresh.docker("network", "rm", "app")
    wait_for(lambda: status(fresh)["lease"]["source"] == "subnet-file", "the file's lease")


@pytest.mark.parametrize("kind", ["newer", "no database"])
def test_a_state_that_cannot_be_used(fresh: Host, kind: str) -> None:
    file = fresh.state_dir / "state.db"
    if kind == "newer":
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 99")
        words = f"state file {file} has version 99, newer than 1"
    else:
        file.write_text("this is no database " * 100)
        words = f"state file {file} cannot be used: file is not a database"
    fresh.start_plugin()
    refused = fresh.docker("network", "create", *FLANNEL, "app", check=False)
    assert words in refused.stderr
    assert fresh.docker("network", "ls", "-qf", "name=app").stdout == ""
    fresh.stop_plugin()
    file.unlink()
    fresh.start_plugin()
    network(fresh, "app")


def test_a_full_disk(fresh: Host) -> None:
    folder = fresh.folder / "small"
    folder.mkdir()
    fresh.run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder)
    fresh.start_plugin({"DOCKER_FLANNEL_STATE_DIR": str(folder)})
    network(fresh, "app")
    container(fresh, "one", "app")
    fresh.run("sh", "-c", f"cat /dev/zero > {folder}/filler", check=False)
    links = fresh.run("ip", "-br", "link").stdout
    wanted = ("run", "--rm", "--network", "app", "-p", "8080:80", "box", "true")
    for _ in range(50):  # what the journal has left is used up at some call
        refused = fresh.docker(*wanted, check=False)
        if not refused.ok:
            break
    assert "cannot be written: database or disk is full" in refused.stderr
    fresh.run("rm", folder / "filler")
    wait_for(lambda: fresh.docker(*wanted, check=False).ok, "a container with room on the disk")
    wait_for(lambda: fresh.run("ip", "-br", "link").stdout.split() == links.split(), "no trace")
