"""What the scenarios share: the package, a web server in a container, and how it comes back."""

import json
import os
import subprocess
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from tests.bed import wait_for
from tests.bed.rootfs import PROJECT
from tests.vm.base import ROOTS
from tests.vm.lab import Lab
from tests.vm.machine import Machine

BACK_WITHIN_S = 30  # of dockerd's start
_NETWORK, _WEB, _PLAIN, _PORT = "app", "web", "plain", 8080
times: list[str] = []  # what the tests measured; shown at the end of the session


@cache
def package(suite: str) -> Path:
    """Return the Debian package of this source for a release."""
    argv = ["setpriv", "--pdeathsig", "TERM", str(PROJECT / "tools/deb"), suite]
    env = {**os.environ, "ROOTS": str(ROOTS)}
    made = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return PROJECT / made.stdout.splitlines()[-1]


def install(machine: Machine, suite: str) -> None:
    """Install the package as its user does; it takes what it needs from the repository."""
    file = package(suite)
    machine.put(file, f"/root/{file.name}")
    note(machine, "apt install", apt(machine, "install", f"/root/{file.name}"))


def apt(machine: Machine, *words: str) -> float:
    """Run apt-get and return how long it took in seconds."""
    argv = ("apt-get", "-qq", "--yes", "-o", "Dpkg::Use-Pty=0", *words)
    return machine.run(*argv, limit_s=900).seconds


def note(machine: Machine, what: str, *seconds: float) -> None:
    """Remember what was measured."""
    times.append(f"{machine.name}: {what}: {', '.join(f'{one:.1f} s' for one in seconds)}")


class Web:
    """A container with `--restart=always`, an address of its own and a published port.

    Beside it, a plain one on Docker's bridge shows how fast Docker is here without us: an emulated
    processor is some thirty times slower than a real one.
    """

    def __init__(self, lab: Lab, machine: Machine) -> None:
        """Make network and containers."""
        self.lab, self.machine = lab, machine
        lease = json.loads(machine.docker("flannel", "status", "--format", "json"))["lease"]
        start = lease["subnet"].rpartition(".")[0]
        self.subnet, self.address = f"{start}.0/26", f"{start}.10"
        create = ("network", "create", "-d", "flannel", "--ipam-driver", "flannel")
        machine.docker(*create, "--subnet", self.subnet, _NETWORK)
        run = ("run", "--detach", "--restart", "always", "--name")
        machine.docker(*run, _PLAIN, "box", "sleep", "1000000")
        place = ("--network", _NETWORK, "--ip", self.address, "--publish", f"{_PORT}:80")
        machine.docker(*run, _WEB, *place, "box", "httpd", "-f", "-h", "/www")
        self.answers()

    def answers(self) -> None:
        """Wait until the port answers those outside; check the container's address and way out."""
        url = f"http://{self.machine.address}:{_PORT}/"
        wait_for(lambda: self.lab.outside.reaches(url), f"{url} to answer", 300, every_s=1)
        assert self.lab.outside.fetch(url) == "box\n"
        shown = self._inspect("{{json .NetworkSettings.Networks}}", _WEB)
        networks: dict[str, Any] = json.loads(shown)
        assert [one["IPAddress"] for one in networks.values()] == [self.address]
        ping = ("docker", "exec", _WEB, "ping", "-c", "1", "-w", "5", self.lab.lan.gateway)
        wait_for(lambda: self.machine.run(*ping, check=False).ok, "the way out", 300, every_s=1)

    def bridge(self) -> dict[str, Any]:
        """Return name, MTU, state and IPv4 addresses of the network's bridge."""
        show = ("ip", "-4", "-j", "address", "show", "type", "bridge")
        links: list[dict[str, Any]] = json.loads(self.machine.run(*show).stdout)
        [found] = [link for link in links if link.get("ifname", "").startswith("fl-")]
        addresses = {one["local"]: one["prefixlen"] for one in found["addr_info"]}
        return {**{key: found[key] for key in ("ifname", "mtu", "operstate")}, **addresses}

    def comes_back(self, beside: str = "nothing") -> None:
        """Reboot; the container must be there again, all as it was, and in time.

        In time is within 30 s of dockerd's start, or twice what the plain container takes.
        """
        before = {self._started(_WEB), self._started(_PLAIN)}
        self.machine.reboot()
        for name in (_WEB, _PLAIN):
            wait_for(lambda: self._started(name) not in before, f"{name} to start", 300, every_s=1)
        ask = ("systemctl", "show", "docker", "--timestamp=unix", "-P", "ExecMainStartTimestamp")
        dockerd = float(self.machine.run(*ask).stdout.strip().lstrip("@"))
        web, plain = self._started(_WEB) - dockerd, self._started(_PLAIN) - dockerd
        text = f"beside {beside}, after dockerd's start, flannel's container and a plain one ran"
        note(self.machine, text, web, plain)
        self.answers()
        assert web < max(BACK_WITHIN_S, 2 * plain)

    def remove(self) -> None:
        """Remove containers and network."""
        self.machine.docker("rm", "--force", _WEB, _PLAIN)
        self.machine.docker("network", "rm", _NETWORK)

    def _started(self, name: str) -> float:
        return datetime.fromisoformat(self._inspect("{{.State.StartedAt}}", name)).timestamp()

    def _inspect(self, template: str, name: str) -> str:
        return self.machine.docker("inspect", "--format", template, name)
