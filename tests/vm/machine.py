"""A real machine: QEMU with a Debian disk, on a bed's LAN.

Commands go through the guest agent, power and snapshots through QEMU's monitor.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bed import Bed, CommandError, Process, Result, wait_for
from tests.bed.commands import log
from tests.vm.agent import Agent
from tests.vm.talk import Talk, TalkError

BOOT_LIMIT_S = 600
_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
_NIC = "virtio-net-pci,netdev=lan,id=nic,addr=0x10,romfile=,mac="


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is made of: a folder of tools/vm-disk, and "kvm" or "tcg"."""

    folder: Path
    accel: str

    def argv(self) -> list[str]:
        """Return the part of QEMU's command that a snapshot depends on."""
        kernel, initrd = self.folder / "vmlinuz", self.folder / "initrd.img"
        return [
            *("qemu-system-x86_64", "-machine", "pc", "-accel", self.accel, "-cpu", "max"),
            *("-smp", "2", "-m", "1024", "-nodefaults", "-display", "none"),
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0"),
            # copies of a machine do not draw the same random numbers
            *("-device", "vmgenid,guid=auto", "-device", "virtio-serial"),
            *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        ]


class Machine:
    """A Debian machine; files of its own are in a folder of the bed.

    `address` is its address on the LAN, which it has once it is plugged in.
    """

    def __init__(self, bed: Bed, name: str, address: str, hardware: Hardware) -> None:
        """Prepare a machine that is off and has no disk yet."""
        self.name, self.address, self.hardware = name, address, hardware
        self.folder = bed.folder / name
        self.folder.mkdir()
        self.disk = self.folder / "disk.qcow2"
        self._bed = bed
        self._agent = Agent(self.folder / "agent")
        self._monitor: Talk | None = None
        self._process: Process | None = None
        self._tap = ""

    # power

    def start(self) -> None:
        """Switch on and wait until systemd has started everything."""
        nic = ["-netdev", self._netdev(), "-device", self._nic()] if self._tap else []
        self._launch(*nic)
        self.wait_until_started()

    def resume(self, snapshot: str) -> None:
        """Switch on as it was at a snapshot that was made before the machine was plugged in."""
        self._launch("-loadvm", snapshot)
        self._resumed()

    def wait_until_started(self) -> str:
        """Wait until systemd has started everything; return "running", or "degraded"."""
        wait_for(self._agent.answers, f"{self.name} to boot", BOOT_LIMIT_S, every_s=0.2)
        ask = ("systemctl", "is-system-running", "--wait")
        return self.run(*ask, check=False, limit_s=BOOT_LIMIT_S).stdout.strip()

    def reboot(self) -> None:
        """Reboot as an operator does, and wait until systemd has started everything."""
        before = self.boot_id()
        self._agent.begin("systemctl", "reboot")
        wait_for(lambda: self._booted_since(before), f"{self.name} to reboot", BOOT_LIMIT_S, 0.2)
        self.wait_until_started()

    def boot_id(self) -> str:
        """Return the kernel's id of this boot."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()

    def _booted_since(self, before: str) -> bool:
        try:
            return self._agent.answers() and self.boot_id() != before
        except TalkError:
            return False

    def power_off(self) -> None:
        """Shut down as an operator does, and wait until the machine is off."""
        assert self._process is not None
        self._agent.begin("systemctl", "poweroff")
        self._process.wait(BOOT_LIMIT_S)
        self._off()

    def cut_power(self) -> None:
        """Switch off at once; what the machine had not written to its disk is lost."""
        assert self._monitor is not None
        assert self._process is not None
        self._monitor.ask("quit")
        self._process.wait()
        self._off()

    def _off(self) -> None:
        assert self._monitor is not None
        self._monitor.close()
        self._agent.close()
        self._monitor = self._process = None

    def _launch(self, *more: str) -> None:
        sockets = {
            name: f"socket,id={name},path={self.folder / name},server=on,wait=off"
            for name in ("agent", "monitor")
        }
        self._process = self._bed.outside.popen(
            *self.hardware.argv(),
            *("-chardev", sockets["agent"], "-chardev", sockets["monitor"]),
            *("-mon", "chardev=monitor,mode=control"),
            *("-chardev", f"file,id=console,path={self.folder / 'console.log'},append=on"),
            *("-serial", "chardev:console"),
            # a host that loses its power is no part of the tests
            *("-drive", f"file={self.disk},if=virtio,cache=unsafe"),
            *more,
            log_name=f"{self.name}-qemu",
        )
        monitor = wait_for(self._connect, f"QEMU of {self.name}", 60)
        assert monitor is not None
        monitor.receive(60)  # the greeting
        monitor.ask("qmp_capabilities")
        self._monitor = monitor

    def _connect(self) -> Talk | None:
        assert self._process is not None
        assert self._process.running(), f"QEMU ended:\n{self._process.log()}"
        try:
            return Talk(self.folder / "monitor")
        except OSError:
            return None

    # snapshots

    def save(self, snapshot: str) -> None:
        """Keep memory and disk as they are now under a name."""
        self._command(f"savevm {snapshot}")

    def load(self, snapshot: str) -> None:
        """Go back to where `save` was; the clock is set to now."""
        assert self._monitor is not None
        try:
            self._command(f"loadvm {snapshot}")
        except TalkError:
            self._monitor.ask("cont")  # QEMU had stopped the machine before it looked for the name
            raise
        self._resumed()

    def _resumed(self) -> None:
        wait_for(self._agent.answers, f"the agent of {self.name}", 120, every_s=0.2)
        self.run("date", "--set", f"@{time.time():.3f}")

    def _command(self, line: str) -> None:
        assert self._monitor is not None
        said = self._monitor.ask("human-monitor-command", 300, command_line=line)
        if said:
            raise TalkError(f"{self.name}: {line}: {said.strip()}")

    # network

    def plug_in(self) -> None:
        """Give a running machine its name, an id of its own, and `eth0` on the LAN."""
        self.write("/etc/hostname", f"{self.name}\n")
        self.write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        self.write("/etc/machine-id", f"{uuid.uuid4().hex}\n")
        self.run("hostname", self.name)
        self.write(
            "/etc/network/interfaces.d/eth0",
            f"auto eth0\niface eth0 inet static\n"
            f"    address {self.address}/24\n    gateway {self._bed.lan.gateway}\n",
        )
        self._tap = self._bed.lan.tap(self.name)
        assert self._monitor is not None
        self._monitor.ask("netdev_add", **_settings(f"type={self._netdev()}"))
        self._monitor.ask("device_add", **_settings(f"driver={self._nic()}"))
        there = ("test", "-e", "/sys/class/net/eth0")
        wait_for(lambda: self.run(*there, check=False).ok, f"eth0 of {self.name}", 120)
        self.run("ifup", "eth0")

    def cable(self, up: bool) -> None:
        """Plug the machine's cable into the LAN or pull it."""
        self._bed.lan.carrier(self.name, up)

    def _netdev(self) -> str:
        return f"tap,id=lan,ifname={self._tap},script=no,downscript=no"

    def _nic(self) -> str:
        return f"{_NIC}52:54:00:00:02:{int(self.address.rpartition('.')[2]):02x}"

    # commands and files

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        limit_s: float = 120,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002 - the name subprocess has given it
    ) -> Result:
        """Run a command as root and return its result.

        Raises CommandError after `limit_s` seconds, and for another exit code than 0 if `check`.
        """
        words, begin = tuple(map(str, argv)), time.monotonic()
        code, out, err = self._agent.execute(list(words), {**_ENV, **(env or {})}, input, limit_s)
        took = time.monotonic() - begin
        result = Result(self.name, words, code, out, err, took)
        log.info("%s (limit %g s)", result, limit_s)
        if check and not result.ok:
            raise CommandError(result, f" (limit {limit_s:g} s)")
        return result

    def docker(self, *argv: str | Path, **options: Any) -> str:
        """Run a docker command and return its output; options as for `run`."""
        return self.run("docker", *argv, **options).stdout.strip()

    def write(self, inside: str, text: str | bytes) -> None:
        """Write a file."""
        self._agent.write(inside, text.encode() if isinstance(text, str) else text)

    def put(self, file: Path, inside: str) -> None:
        """Copy a file of this machine's into the machine."""
        self.write(inside, file.read_bytes())


def _settings(option: str) -> dict[str, Any]:
    """Return what QEMU's monitor takes for the words of an option of its command."""
    return dict(pair.split("=", 1) for pair in option.split(","))
