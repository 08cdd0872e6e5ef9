"""Ports through random publishing, conflicts, crashes, restarts and flushes.

In the end what is held, what is published and what is stored say the same.
"""

from __future__ import annotations

import random
from ipaddress import IPv4Address
from typing import Any

import pytest

from driver.model.firewall import FirewallEntry, PortMap, Ruleset
from driver.model.objects import PortSocket
from driver.model.records import Proto
from tests.unit.bench import WELL, Bench
from tests.unit.chaos import Chaos
from tests.unit.docker import port
from tests.unit.fakes import seeded

Port = tuple[Proto, IPv4Address, int, str]
SEQUENCES, ACTS = 200, 14
NUMBERS = range(8000, 8004)


class PortChaos(Chaos):
    """Few ports that many want."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.nets.append(self.docker.create_network())
        self.docker.start(self.nets[0])

    def some_ports(self) -> list[dict[str, Any]]:
        number, proto = self.rng.choice(NUMBERS), self.rng.choice([6, 17, 132])
        host = self.rng.choice(["", "", "192.0.2.1", "127.0.0.1"])
        wishes = [
            port(80, number, proto=proto, host=host),
            port(81, 8000, 8003),
            port(82, 8000, 8003, proto=17),
        ]
        return self.rng.sample(wishes, self.rng.randint(0, 3))

    def act(self) -> None:
        self.rng.choice([self.start, self.stop, self.publish, self.publish, self.foreign,
                         self.flush, self.wait, self.restart, self.crash])()  # fmt: skip

    def foreign(self) -> None:
        """Another program takes a port that is free, or gives its own back."""
        held = {
            hold.port for hold in self.bench.ports.objects.values() if isinstance(hold, PortSocket)
        }
        number = self.rng.choice(NUMBERS)
        if number not in held:
            self.bench.ports.taken ^= {number}

    def flush(self) -> None:
        adapter = self.rng.choice([self.bench.nft, self.bench.ports])
        adapter.lose(self.rng.choice([Ruleset, FirewallEntry, PortSocket]))

    def crash(self) -> None:
        self.bench.world.crash_at = self.bench.world.steps + self.rng.randint(1, 12)
        self.rng.choice([self.start, self.publish, self.stop])()


def stored(bench: Bench) -> set[Port]:
    return {
        (p.proto, p.host_ip, p.host_port, e.id)
        for e in bench.state.endpoints.values()
        for p in e.ports
    }


def held(bench: Bench) -> set[Port]:
    objects = bench.ports.objects.values()
    return {(t.proto, t.ip, t.port, t.owner) for t in objects if isinstance(t, PortSocket)}


def published(bench: Bench) -> set[Port]:
    objects = bench.nft.objects.values()
    return {(t.proto, t.host_ip, t.host_port, t.owner) for t in objects if isinstance(t, PortMap)}


@pytest.mark.parametrize("part", range(8))
def test_ports_held_published_and_stored_are_the_same(part: int) -> None:
    for seed in range(part, SEQUENCES, 8):
        run(seed)


def run(seed: int) -> None:
    print(f"seed {seed}")  # noqa: T201  what a failure needs
    chaos = PortChaos(seeded(seed))
    bench = chaos.bench
    for _ in range(ACTS):
        chaos.survive()
        assert held(bench) <= stored(bench), "a port is held without an owner"
    bench.ports.taken.clear()
    bench.passes(12)
    assert str(bench.passes(1)[0]) == WELL
    assert held(bench) == published(bench) == stored(bench)
    bench.assert_agrees()
    for made in chaos.containers():
        chaos.docker.stop(made)
    bench.passes(3)
    assert held(bench) == published(bench) == set()
