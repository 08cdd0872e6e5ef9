"""A dockerd, a host and an administrator that do anything at all in any order."""

from __future__ import annotations

import random
from typing import Any

from driver.errors import FlannelError, HostError, StoreError
from driver.model.firewall import FirewallEntry, ForwardGate, Ruleset
from driver.model.objects import (
    Bridge,
    HostObject,
    LinkAddress,
    PortSocket,
    SandboxAddress,
    Sysctl,
    UnreachableRoute,
    Veth,
)
from driver.model.records import short
from tests.unit.bench import make_core
from tests.unit.docker import Container, Docker, Net, Refused, direct, port
from tests.unit.fake_adapters import nothing
from tests.unit.fakes import Crash

DRIFT = (
    Bridge,
    LinkAddress,
    Sysctl,
    UnreachableRoute,
    Ruleset,
    FirewallEntry,
    ForwardGate,
    PortSocket,
    SandboxAddress,
)
KINDS = ("flannel", "flannel", "docker", "off")


class Chaos:
    """A dockerd, a host and an administrator, none of them careful."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.bench = rng, make_core()
        self.docker = Docker(self.bench, self.send)
        self.nets: list[Net] = []
        self.dead: set[str] = set()

    def send(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """One object fails at a time: what Docker does about a failure finds all mended."""
        try:
            return direct(self.bench)(method, body)
        except Refused:
            self.mend()
            raise

    def containers(self) -> list[Container]:
        return [made for net in self.nets for made in net.containers]

    def some_ports(self) -> list[dict[str, Any]]:
        wishes = [port(80, 8000 + self.rng.randint(0, 3)), port(81, 9000, 9003)]
        return self.rng.sample(wishes, self.rng.randint(0, 2))

    def act(self) -> None:
        actions = [self.create, self.start, self.start, self.stop, self.publish, self.remove,
                   self.die, self.drift, self.wait, self.restart]  # fmt: skip
        self.rng.choice(actions)()

    def survive(self) -> None:
        """Act; a call may be refused, and a plugin that crashes starts again."""
        try:
            self.act()
        except Refused:
            pass
        except Crash:
            self.bench.boot()
        self.mend()

    def create(self) -> None:
        kind, internal = self.rng.choice(KINDS), self.rng.random() < 0.3
        if kind == "flannel":
            self.nets.append(self.docker.create_network(internal=internal))
        else:
            self.nets.append(self.docker.create_short(kind, internal=internal))

    def start(self) -> None:
        if self.nets:
            self.docker.start(self.rng.choice(self.nets), *self.some_ports())

    def stop(self) -> None:
        if self.containers():
            self.docker.stop(self.rng.choice(self.containers()))

    def publish(self) -> None:
        if self.containers():
            self.docker.publish(self.rng.choice(self.containers()), *self.some_ports())

    def remove(self) -> None:
        empty = [net for net in self.nets if not net.containers]
        if empty:
            self.docker.remove_network(empty[0])
            self.nets.remove(empty[0])

    def die(self) -> None:
        """End a sandbox: its veth goes with it, and nobody tells."""
        if self.containers():
            made = self.rng.choice(self.containers())
            self.dead.add(made.id)
            self.bench.kernel.objects.pop(Veth.key_of(f"flh{short(made.id)}"), None)

    def drift(self) -> None:
        self.rng.choice(self.bench.adapters).lose(self.rng.choice(DRIFT))

    def wait(self) -> None:
        self.bench.passes(1, apart_s=self.rng.choice([0.5, 5, 31, 90]))

    def restart(self) -> None:
        self.bench.boot()

    def break_something(self) -> None:
        """Let something fail during the next act, once or for all of it."""
        bench, luck = self.bench, self.rng.random
        match self.rng.randint(0, 4):
            case 0:
                bench.journal.error = StoreError("the disk is full")
            case 1:
                bench.world.crash_at = bench.world.steps + self.rng.randint(1, 30)
            case 2:
                self.rng.choice(bench.adapters).stuck = set(bench.kernel.objects) | set(
                    bench.nft.objects
                )
            case _:

                def refuse(_: HostObject) -> FlannelError | None:
                    return HostError("not now") if luck() < 0.3 else None

                self.rng.choice(bench.adapters).refuse = refuse

    def mend(self) -> None:
        self.bench.journal.error, self.bench.world.crash_at = None, 0
        for adapter in self.bench.adapters:
            adapter.stuck = set()
            adapter.refuse = self.bench.ports._taken if adapter is self.bench.ports else nothing


def check_containers(chaos: Chaos) -> None:
    """Every container that lives has its own address and its own ports."""
    endpoints = chaos.bench.state.endpoints
    alive = [made for made in chaos.containers() if made.id not in chaos.dead]
    for made in alive:
        assert made.id in endpoints, f"the living container {short(made.id)} was dropped"
        assert str(endpoints[made.id].shown_ip) == made.address
    addresses = [endpoints[made.id].ip for made in alive]
    assert len(set(addresses)) == len(addresses)
    ports = [(p.proto, p.host_port) for e in endpoints.values() for p in e.ports]
    assert len(set(ports)) == len(ports)
