"""Machines to begin with: booted, Docker running, the image loaded; kept between sessions.

They are in ROOTS, as the trees of tools/docker-root are. Nothing half-done is ever taken for one.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bed import Bed, CommandError, image
from tests.bed.rootfs import PROJECT
from tests.vm.machine import Hardware, Machine

SUITES = ("bookworm", "trixie")
ROOTS = Path(os.environ.get("ROOTS", "/var/tmp/docker-flannel-roots"))
SNAPSHOT = "booted"
_PROBE_LIMIT_S = 30


def hardware(suite: str) -> Hardware:
    """Return what machines of a Debian release are made of; makes the disk if it is not there."""
    made = subprocess.run(
        ["setpriv", "--pdeathsig", "TERM", PROJECT / "tools/vm-disk", suite, ROOTS],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = Path(made.stdout.splitlines()[-1])
    return Hardware(folder, accelerator(folder))


def accelerator(folder: Path) -> str:
    """Return "kvm" if a kernel boots with that here, else "tcg"; tried once for each kernel."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    known = folder / f"accel-{_short(platform.platform() + _qemu_version())}"
    with _lock(folder):
        if not known.exists():
            known.write_text("kvm" if _boots_with_kvm(folder) else "tcg")
    return known.read_text()


def _boots_with_kvm(folder: Path) -> bool:
    """Whether a kernel gets as far as to panic, having no disk, and so to the end of QEMU."""
    argv = [
        *("qemu-system-x86_64", "-machine", "pc", "-accel", "kvm", "-cpu", "max", "-m", "512"),
        *("-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(folder / "vmlinuz"), "-append", "console=ttyS0 panic=-1"),
    ]
    with Bed() as bed, contextlib.suppress(CommandError):
        return "Linux version" in bed.outside.run(*argv, limit_s=_PROBE_LIMIT_S).stdout
    return False


def base(suite: str) -> tuple[Hardware, Path]:
    """Return the hardware of a Debian release and a disk with the snapshot to begin with."""
    built = hardware(suite)
    parts = [_qemu_version(), *built.argv()]
    parts += [Path(file).read_text() for file in (__file__, image.__file__)]
    disk = built.folder / f"base-{_short(repr(parts))}.qcow2"
    with _lock(built.folder):
        if not disk.exists():
            _make(built, disk)
    return built, disk


def _make(built: Hardware, disk: Path) -> None:
    with Bed() as bed:
        machine = Machine(bed, "debian", "192.0.2.100", built)
        new_disk(built, machine.disk)
        machine.start()
        machine.write("/etc/resolv.conf", "")
        machine.run("apt-get", "-qq", "update")
        machine.put(image.archive(machine.folder / "box.tar"), "/root/box.tar")
        machine.docker("load", "--input", "/root/box.tar")
        machine.run("rm", "/root/box.tar")
        machine.run("sync")
        machine.save(SNAPSHOT)
        machine.cut_power()
        part = disk.with_suffix(".part")
        shutil.move(machine.disk, part)
        part.rename(disk)


def new_disk(built: Hardware, file: Path) -> None:
    """Make a disk that holds what differs from the release's."""
    base_file = str(built.folder / "disk.img")
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base_file, str(file)]
    subprocess.run(make, check=True)


def copy(disk: Path, target: Path) -> None:
    """Copy a machine's disk."""
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", disk, target], check=True)


def _qemu_version() -> str:
    ask = ["qemu-system-x86_64", "--version"]
    return subprocess.run(ask, check=True, capture_output=True, text=True).stdout


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
