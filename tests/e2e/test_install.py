"""The service as it is installed: files, readiness, one instance."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from driver import __version__
from driver.cli.call import METADATA
from tests.bed import Host, wait_for
from tests.e2e.helpers import COMMAND, network

PROJECT = Path(__file__).parents[2]
# in a mount namespace of its own, where the folders it writes to are empty
INSTALL = """
set -eu
mount --make-rprivate /
for folder in /opt /etc/systemd /etc/NetworkManager /etc/default /usr/local/bin /usr/local/share \
    /usr/local/lib/docker /run/systemd /var/lib/docker-flannel; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
done
cd "$1"
export PYTHON="$2" PREFIX=/opt/elsewhere
fails() {
    ! "$@" >/opt/said 2>&1 || echo "it did not fail"
    grep -E "^(un)?install:" /opt/said || :
    rm /opt/said
}

echo "# missing"
PYTHON=/nowhere/python3 fails packaging/install
find /opt -mindepth 1
echo "# fresh, and the service does not start"
mkdir /run/systemd/system
cat >/usr/local/bin/systemctl <<'END'
#!/bin/sh
case $1 in restart) exit 1 ;; -q) exit 3 ;; esac
END
chmod +x /usr/local/bin/systemctl
export PATH="/usr/local/bin:$PATH"
fails packaging/install
find /opt /etc/systemd /usr/local/lib/docker -mindepth 1 ! -type d
rmdir /run/systemd/system
echo "# installed"
packaging/install
grep ExecStart=/opt/elsewhere/bin/docker-flannel /etc/systemd/system/docker-flannel.service
stat -c %a /etc/default/docker-flannel
cmp packaging/networkd/*.network /etc/systemd/network/*
cmp packaging/NetworkManager/*.conf /etc/NetworkManager/conf.d/*
/usr/local/bin/docker-flannel --version
/usr/local/lib/docker/cli-plugins/docker-flannel docker-cli-plugin-metadata
echo "# an update that cannot be made"
touch /opt/elsewhere/first
unreachable="PIP_CONFIG_FILE=/dev/null PIP_INDEX_URL=http://127.0.0.1:9/ PIP_RETRIES=0"
fails env $unreachable packaging/install
ls /opt/elsewhere/first
echo "# an update that does not start"
echo "#first" >>/etc/systemd/system/docker-flannel.service
mkdir /run/systemd/system
fails packaging/install
rmdir /run/systemd/system
tail -n 1 /etc/systemd/system/docker-flannel.service
ls /opt/elsewhere/first
echo "# updated"
packaging/install
find /opt -mindepth 1 -maxdepth 1 -o -name first
! grep "#first" /etc/systemd/system/docker-flannel.service
/usr/local/bin/docker-flannel --version
rm /usr/local/bin/systemctl
echo "# back, after the package took over and left the folder"
rm /etc/systemd/system/docker-flannel*.service
touch /opt/elsewhere/first
packaging/install
find /opt -mindepth 1 -maxdepth 1 -o -name first
grep ExecStart=/opt/elsewhere/bin/docker-flannel /etc/systemd/system/docker-flannel.service
echo "# beside the package"
printf '#!/bin/sh\nprintf installed\n' >/usr/local/bin/dpkg-query
chmod +x /usr/local/bin/dpkg-query
fails packaging/install
fails packaging/uninstall
rm /usr/local/bin/dpkg-query
echo "# removed"
unshare -n packaging/uninstall | cut -d";" -f1
find /opt /etc/systemd /etc/NetworkManager /usr/local/bin /usr/local/lib/docker /usr/local/share \
    ! -type d
"""

MISSING = (
    "install: these packages are missing; install them with: apt-get install "
    "--no-install-recommends python3 python3-venv python3-dev"
)
BESIDE = (
    "install: the package docker-flannel is installed, and two installations would get in each "
    "other's way: install a newer package (make deb), or remove that one first (apt remove "
    "docker-flannel)"
)
OVER = (
    "uninstall: the package docker-flannel took over: delete /opt/elsewhere, and remove the "
    "package with apt"
)
NO_START = "install: the service does not start; `journalctl -u docker-flannel` says why"
BACK = "install: the earlier installation is back"
DONE = "installed in /opt/elsewhere; put settings into /etc/default/docker-flannel"
UNIT = "ExecStart=/opt/elsewhere/bin/docker-flannel serve"


def test_install_update_and_uninstall() -> None:
    python = str(Path(sys.base_prefix, "bin", "python3"))
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", INSTALL, "sh", str(PROJECT), python],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert _steps(ran.stdout) == {
        "missing": [MISSING],
        "fresh, and the service does not start": [
            NO_START,
            "install: nothing is installed",
        ],
        "installed": [DONE, UNIT, "640", __version__, json.dumps(METADATA)],
        "an update that cannot be made": ["/opt/elsewhere/first"],
        "an update that does not start": [
            NO_START,
            BACK,
            "#first",
            "/opt/elsewhere/first",
        ],
        "updated": [DONE, "/opt/elsewhere", __version__],
        "back, after the package took over and left the folder": [DONE, "/opt/elsewhere", UNIT],
        "beside the package": [BESIDE, OVER],
        "removed": ["removed"],
    }


def _steps(text: str) -> dict[str, list[str]]:
    """Return the lines of each step by its heading."""
    parts = [part.splitlines() for part in text.split("# ")[1:]]
    return {lines[0]: lines[1:] for lines in parts}


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


def test_the_units_start_docker_in_time_and_themselves_again() -> None:
    unit = (PROJECT / "packaging/docker-flannel.service").read_text().splitlines()
    standin = (PROJECT / "packaging/docker-flannel-standin.service").read_text().splitlines()
    for line in ("Type=notify", "Restart=always"):
        assert line in unit
        assert line in standin
    assert "Before=docker.service" in standin
    assert "Before=docker.service" not in unit, "it may come late"
    assert os.access(PROJECT / "packaging/install", os.X_OK)
