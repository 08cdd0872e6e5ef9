"""The service as it is installed: files, readiness, one instance."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.bed import Host, wait_for
from tests.e2e.helpers import COMMAND, network

PROJECT = Path(__file__).parents[2]
# in a mount namespace of its own, where the folders it writes to are empty
INSTALL = """
set -eu
mount --make-rprivate /
for folder in /opt /etc/systemd /etc/NetworkManager /etc/default /usr/local/bin \
    /usr/local/lib/docker /run/systemd; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
done
cd "$1"
PYTHON="$2" PREFIX=/opt/elsewhere packaging/install
grep ExecStart=/opt/elsewhere/bin/docker-flannel /etc/systemd/system/docker-flannel.service
stat -c %a /etc/default/docker-flannel
cmp packaging/networkd/*.network /etc/systemd/network/*
cmp packaging/NetworkManager/*.conf /etc/NetworkManager/conf.d/*
/usr/local/bin/docker-flannel --version
/usr/local/lib/docker/cli-plugins/docker-flannel docker-cli-plugin-metadata
PREFIX=/opt/elsewhere packaging/uninstall
find /opt /etc/systemd /etc/NetworkManager /usr/local/bin /usr/local/lib/docker -type f -o -type l
"""


def test_install_and_uninstall() -> None:
    python = str(Path(sys.base_prefix, "bin", "python3"))
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", INSTALL, "sh", str(PROJECT), python],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("installed in /opt/elsewhere")
    assert lines[2] == "600"
    assert '"SchemaVersion": "0.1.0"' in lines[4]
    assert lines[5].startswith("removed;")
    assert lines[6:] == [], "nothing is left"


def test_a_network_is_forgotten(host: Host) -> None:
    block = network(host, "app")
    name = host.docker("network", "ls", "-qf", "name=app").stdout.strip()
    assert f"forgotten: {name}, block {block}" in host.run(COMMAND, "forget", name).stdout
    assert "networks   0" in host.run(COMMAND, "status").stdout
    told = host.run(COMMAND, "forget", name, check=False)
    assert told.code == 1
    assert f"docker-flannel: '{name}' is neither" in told.stderr
    host.docker("network", "rm", "app")


def test_ready_is_notified_when_docker_can_call(host: Host) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(host.folder / "notify"))
        listener.settimeout(60)
        served = host.folder / "second.sock"
        server = host.popen(
            COMMAND,
            "serve",
            "--socket",
            served,
            "--state-dir",
            host.folder / "second",
            env={"NOTIFY_SOCKET": str(host.folder / "notify")},
            log_name="second",
        )
        while b"READY=1" not in listener.recv(1000):
            pass
    assert served.is_socket()
    assert oct(served.stat().st_mode & 0o777) == "0o600"
    status = (COMMAND, "status", "--socket", served)
    assert "networks   0" in host.run(*status).stdout
    server.stop()
    wait_for(lambda: not served.exists(), "the socket to go")
    told = host.run(*status, check=False)
    assert told.code == 1
    assert "start it with `systemctl start docker-flannel`" in told.stderr


def test_the_unit_starts_before_docker_and_always_again() -> None:
    unit = (PROJECT / "packaging/docker-flannel.service").read_text().splitlines()
    for line in ("Before=docker.service", "Type=notify", "Restart=always"):
        assert line in unit
    assert os.access(PROJECT / "packaging/install", os.X_OK)
