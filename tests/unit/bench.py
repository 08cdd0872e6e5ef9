"""A core on fakes, for the tests of everything that goes through the reconciler."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from driver.api.body import Body
from driver.core.dataplane import Dataplane
from driver.core.desire import desire
from driver.core.loop import Loop
from driver.core.passes import Report
from driver.core.reconciler import Reconciler
from driver.flannel.local_source import LocalSource
from driver.handlers import CALLS
from driver.model.interfaces import Source
from driver.model.objects import HostObject
from driver.model.records import State
from tests.unit.fake_adapters import (
    FakeAdapter,
    FakeGate,
    FakeKernel,
    FakeNft,
    FakePorts,
    FakeSandboxes,
    FakeSurvey,
)
from tests.unit.fakes import Clock, FakeJournal, World

NETWORK = IPv4Network("10.2.0.0/16")
WELL = "all as it should be"  # what a pass says that had nothing to do


class Bench:
    """A core on fakes. `boot` makes it anew on the same host and journal, as a restart does."""

    def __init__(self, leases: Source, journal: FakeJournal | None = None) -> None:
        self.world, self.clock = World(), Clock()
        self.leases = leases
        self.kernel, self.ports = FakeKernel(self.world), FakePorts(self.world)
        self.nft, self.gate = FakeNft(self.world), FakeGate(self.world)
        self.sandboxes = FakeSandboxes(self.kernel)
        self.adapters: list[FakeAdapter] = [
            self.gate, self.nft, self.ports, self.sandboxes, self.kernel
        ]  # fmt: skip
        self.dataplane = Dataplane(self.adapters)
        self.survey = FakeSurvey(self.kernel)
        self.journal = journal or FakeJournal(self.world)
        self.boot()

    def boot(self) -> None:
        self.ports.objects.clear()  # sockets go with the process
        self.sandboxes.objects.clear()  # it knows no more where it has to look
        self.core = Reconciler(self.journal, self.dataplane, self.survey, self.leases, self.clock)
        self.loop = Loop(self.core)
        self.core.converge()

    def reboot(self) -> None:
        """Boot as the service does, which may have lost its state."""
        self.ports.objects.clear()
        self.core = Reconciler(self.journal, self.dataplane, self.survey, self.leases, self.clock)
        self.loop = Loop(self.core)
        self.loop.boot()

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        """Make one Docker call, past HTTP."""
        return CALLS[method](self.core, Body.decode(json.dumps(body).encode()))

    def passes(self, count: int = 3, apart_s: float = 31.0) -> list[Report]:
        """Make passes, as the timer would."""
        reports = []
        for _ in range(count):
            self.clock.advance(apart_s)
            reports.append(self.core.converge())
        return reports

    def woken(self) -> bool:
        """Whether a pass was asked for since the last time."""
        woken = self.core.woken.is_set()
        self.core.woken.clear()
        return woken

    @property
    def state(self) -> State:
        return self.core.state

    def observed(self) -> frozenset[HostObject]:
        return self.dataplane.observe()

    def assert_agrees(self) -> None:
        """Host, memory and journal say the same."""
        assert self.observed() == desire(self.state, self.core.facts)
        assert self.journal.load() == self.state

    def assert_clean(self) -> None:
        """Nothing is left but the lease and the memory of freed blocks."""
        assert self.observed() == frozenset()
        assert {record.kind for record in self.journal.rows.values()} <= {"lease", "freed"}
        assert self.journal.load() == self.state


def make_core(leases: Source | None = None, subnet_len: int = 24) -> Bench:
    """Return a bench with a booted core; standalone lease 10.2.0.0/24 unless told otherwise."""
    return Bench(leases or LocalSource("standalone", NETWORK, subnet_len, Path("/nonexistent")))
