"""Random containers, conflicts, crashes and flushes with a real dockerd.

Many more go through the fakes (tests/unit) and the adapters (tests/kernel).
"""

from __future__ import annotations

import random
import sys

import pytest

from tests.bed import Host, Process, wait_for
from tests.e2e.helpers import network, page, ports

ACTS = 16
NUMBERS = range(8000, 8003)
BIND = "import socket; s = socket.socket(); s.bind(('', {port})); s.listen()"


class Chaos:
    """Containers that want few ports, and another program that wants them too."""

    def __init__(self, host: Host, rng: random.Random) -> None:
        self.host, self.rng = host, rng
        self.wanted: dict[str, int] = {}
        self.program: tuple[int, Process] | None = None
        self.serial = 0

    def start(self) -> None:
        number, name = self.rng.choice(NUMBERS), f"c{self.serial}"
        self.serial += 1
        script = f"echo {name} > /www/index.html; exec httpd -f -p 80 -h /www"
        words = ("run", "-d", "--name", name, "--network", "app", "-p", f"{number}:80", "box")
        started = self.host.docker(*words, "sh", "-c", script, check=False)
        if number in self.wanted.values() or (self.program and self.program[0] == number):
            assert "port is already allocated" in started.stderr
            self.host.docker("rm", "-f", name)
        else:
            assert started.ok, started.stderr
            self.wanted[name] = number

    def remove(self) -> None:
        if self.wanted:
            name = self.rng.choice(list(self.wanted))
            self.host.docker("rm", "-f", name)
            del self.wanted[name]

    def other_program(self) -> None:
        if self.program:
            self.program[1].kill()
            self.program = None
        elif free := [n for n in NUMBERS if n not in self.wanted.values()]:
            number = self.rng.choice(free)
            self.program = number, self.host.serve("another", number)

    def crash(self) -> None:
        self.host.kill_plugin()
        self.host.start_plugin()

    def flush(self) -> None:
        way = self.rng.choice(
            ["nft delete table inet docker_flannel", "iptables -F DKFLANNEL-FORWARD"]
        )
        self.host.run(*way.split())

    def check(self) -> None:
        def whole() -> bool:
            found = ports(self.host)
            listed = {p["name"]: p["host_port"] for p in found if p["published"] and p["held"]}
            return listed == self.wanted and len(found) == len(self.wanted)

        wait_for(whole, f"the ports to be {self.wanted}")
        for name, number in self.wanted.items():
            where = self.host.address
            wait_for(lambda: page(self.host, number, where) == name, name)
        for number in NUMBERS:
            taken = number in self.wanted.values() or (self.program and self.program[0] == number)
            bind = BIND.format(port=number)
            assert self.host.run(sys.executable, "-c", bind, check=False).ok == (not taken)


@pytest.mark.parametrize("seed", [1])
def test_ports_are_what_the_containers_want(host: Host, seed: int) -> None:
    print(f"seed {seed}")  # noqa: T201
    network(host, "app")
    chaos = Chaos(host, random.Random(seed))  # noqa: S311
    acts = [chaos.start] * 3 + [chaos.remove, chaos.other_program, chaos.crash, chaos.flush]
    for _ in range(ACTS):
        chaos.rng.choice(acts)()
        chaos.check()
    if chaos.program:
        chaos.other_program()
    while chaos.wanted:
        chaos.remove()
    chaos.check()
