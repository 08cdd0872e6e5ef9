"""Files that keep systemd-networkd and NetworkManager off the plugin's interfaces."""

from __future__ import annotations

import re
import subprocess
from configparser import ConfigParser
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from driver.model.records import (
    BRIDGE_PREFIX,
    CONTAINER_END_PREFIX,
    FLANNEL_PREFIX,
    HOST_END_PREFIX,
)

PACKAGING = Path(__file__).parents[2] / "packaging"
NETWORKD = PACKAGING / "networkd/05-docker-flannel.network"
NETWORK_MANAGER = PACKAGING / "NetworkManager/10-docker-flannel.conf"
ID = "0123456789ab"
OURS = (
    *(prefix + ID for prefix in (BRIDGE_PREFIX, HOST_END_PREFIX, CONTAINER_END_PREFIX)),
    f"{FLANNEL_PREFIX}1",
)
OTHERS = ("eth0", "docker0", "br-0123456789ab", "veth0123456", "flash0", "fl-a", "flannel-v6.1")
# a real networkd that wants to have everything, in namespaces of its own
SCRIPT = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/netif/links
chown -R systemd-network /run/systemd/netif
mount -t tmpfs tmpfs /etc/systemd/network
mount -t sysfs -o ro sysfs /sys # what networkd takes for a container, where no udev is waited for
printf '[Match]\\nName=*\\n[Network]\\nLinkLocalAddressing=no\\nAddress=192.0.2.77/24\\n' \
    >/etc/systemd/network/20-all.network
[ -z "$1" ] || cp "$1" /etc/systemd/network
add() { ip link add "$1" type bridge && ip addr add 10.2.0.1/24 dev "$1" && ip link set "$1" up; }
add fl-0123456789ab
add other
/lib/systemd/systemd-networkd &
n=0
until ip addr show other | grep -q 192.0.2.77; do
    n=$((n + 1))
    [ $n -lt 600 ] || exit 9
    sleep 0.1
done
for name in fl-0123456789ab other; do
    sed -n 's/^ADMIN_STATE=//p' "/run/systemd/netif/links/$(cat /sys/class/net/$name/ifindex)"
    ip -o -4 addr show $name | grep -o 'inet [^ ]*'
done
kill $!
"""


def seen(file: str) -> str:
    """Return what networkd makes of our bridge and of another, in this order."""
    apart = ("unshare", "-m", "-n", "-p", "-f", "--mount-proc", "--kill-child")
    ran = subprocess.run(
        [*apart, "sh", "-c", SCRIPT, "sh", file],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return " ".join(ran.stdout.split())


TAKEN = re.compile(r"(configuring|configured) inet 10\.2\.0\.1/24 inet 192\.0\.2\.77/24")


def test_networkd_leaves_our_bridges_alone() -> None:
    ours, _, other = seen(str(NETWORKD)).partition("/24 ")
    assert ours == "unmanaged inet 10.2.0.1"
    assert TAKEN.fullmatch(other)


def test_without_the_file_it_takes_them() -> None:
    ours, _, other = seen("").partition("77/24 ")
    assert TAKEN.fullmatch(f"{ours}77/24")
    assert TAKEN.fullmatch(other)


def patterns(file: Path) -> list[str]:
    """Return the names that a file is about."""
    config = ConfigParser()
    config.optionxform = str  # type: ignore[assignment,method-assign]
    config.read(file)
    if file == NETWORKD:
        return config["Match"]["Name"].split()
    section = config["device-docker-flannel"]
    assert section["managed"] == "0"
    return [word.removeprefix("interface-name:") for word in section["match-device"].split(";")]


@pytest.mark.parametrize("file", [NETWORKD, NETWORK_MANAGER])
def test_the_files_are_about_our_interfaces_and_no_others(file: Path) -> None:
    found = patterns(file)
    for name in OURS:
        assert any(fnmatchcase(name, pattern) for pattern in found), name
    for name in OTHERS:
        assert not any(fnmatchcase(name, pattern) for pattern in found), name
