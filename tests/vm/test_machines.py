"""The bed itself: what a test relies on when it uses a real machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bed import CommandError, wait_for
from tests.bed.rootfs import PROJECT
from tests.vm import Machine
from tests.vm.base import hardware
from tests.vm.lab import Lab
from tests.vm.talk import TalkError

# what namespaces on the test's own machine cannot show
MODULES = ("vxlan", "sctp", "wireguard", "ipip", "nf_flow_table", "nft_flow_offload", "nf_tables")
OWNER = """
import sys
from tests.vm.lab import Lab
lab = Lab("bookworm")
lab.machine("orphan")
print(lab.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def two(lab: Lab, suite: str) -> tuple[Machine, Machine]:
    return lab.machine("one", suite), lab.machine("two", suite)


@pytest.fixture
def one(two: tuple[Machine, Machine]) -> Machine:
    return two[0]


def test_a_command_fails_with_its_output(one: Machine) -> None:
    assert one.run("cat", input="given\n").stdout == "given\n"
    assert one.run("sh", "-c", "exit 3", check=False).code == 3
    with pytest.raises(CommandError, match=r"one: ls /nowhere -> 2 .*\n.*No such file"):
        one.run("ls", "/nowhere")
    with pytest.raises(CommandError, match=r"sleep 60 -> 124"):
        one.run("sleep", "60", limit_s=1)
    wait_for(lambda: not one.run("pgrep", "sleep", check=False).ok, "the command to be stopped")


def test_a_file_is_copied_in(one: Machine, tmp_path: Path) -> None:
    content = os.urandom((2 << 20) + 7)
    (tmp_path / "file").write_bytes(content)
    one.put(tmp_path / "file", "/root/file")
    told = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True)
    assert one.run("sha256sum", "/root/file").stdout.split()[0] == told.stdout.decode().split()[0]


def test_machines_are_apart_and_reach_each_other(two: tuple[Machine, Machine], lab: Lab) -> None:
    here, there = two
    here.run("ping", "-c", "1", "-w", "60", there.address)
    lab.outside.run("ping", "-c", "1", "-w", "60", here.address)
    ids = ("/etc/machine-id", "/etc/hostname", "/sys/class/net/eth0/address")
    for file in ids:
        assert here.run("cat", file).stdout != there.run("cat", file).stdout
    # what they draw at random differs although both began as one
    draw = ("cat", "/proc/sys/kernel/random/uuid")
    assert here.run(*draw).stdout != there.run(*draw).stdout
    there.cable(False)
    assert not here.run("ping", "-c", "1", "-w", "2", there.address, check=False).ok
    there.cable(True)
    here.run("ping", "-c", "1", "-w", "60", there.address)


def test_nothing_leads_outside(one: Machine, lab: Lab) -> None:
    routes = json.loads(lab.outside.run("ip", "-j", "route").stdout)
    assert [route["dst"] for route in routes] == ["192.0.2.0/24"]
    assert not one.run("ping", "-c", "1", "-w", "2", "198.51.100.1", check=False).ok


def test_a_bare_debian_with_docker(one: Machine, suite: str) -> None:
    assert f"VERSION_CODENAME={suite}" in one.run("cat", "/etc/os-release").stdout
    assert one.docker("run", "--rm", "box", "echo", "ran") == "ran"
    assert not one.run("which", "python3", "gcc", "docker-flannel", check=False).stdout
    assert one.run("systemctl", "is-system-running", check=False).stdout == "running\n"


def test_the_modules_that_this_machine_lacks(one: Machine) -> None:
    one.run("modprobe", "-a", *MODULES)
    one.run("ip", "link", "add", "wg0", "type", "wireguard")
    one.run("ip", "link", "del", "wg0")


def test_packages_come_from_the_machine_itself(one: Machine) -> None:
    one.save("bare")
    one.run("apt-get", "-qq", "install", "-y", "--no-install-recommends", "conntrack", limit_s=600)
    assert "conntrack v" in one.run("conntrack", "--version").stdout
    one.load("bare")
    assert not one.run("which", "conntrack", check=False).stdout
    with pytest.raises(TalkError, match=r"one: loadvm nowhere: .*nowhere"):
        one.load("nowhere")


def test_reboot_and_power_cut(one: Machine) -> None:
    boot = one.boot_id()
    one.write("/root/kept", "kept")
    one.run("sync")
    one.reboot()
    assert (again := one.boot_id()) != boot
    one.cut_power()
    one.start()
    assert one.boot_id() not in {boot, again}
    assert one.run("cat", "/root/kept").stdout == "kept"
    one.power_off()
    one.start()
    assert one.docker("run", "--rm", "box", "echo", "ran") == "ran"


def test_nothing_outlives_a_killed_owner() -> None:
    argv = [sys.executable, "-c", OWNER]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert _running(folder)
        owner.send_signal(signal.SIGKILL)
    wait_for(lambda: not folder.exists(), "the bed's folder to go")
    assert not _running(folder)


def _running(folder: Path) -> list[str]:
    """Return the programs that were started with a file of a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode("utf-8", "replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += words[:1] * any(f"{folder}/" in word for word in words)
    return found


def test_no_disk_of_an_unknown_release() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        hardware("buster")
