"""Anything at all happens in any order; in the end the host is what the state says."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.unit.bench import WELL
from tests.unit.chaos import Chaos, check_containers
from tests.unit.docker import Refused
from tests.unit.fakes import seeded


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_host_becomes_what_the_state_says(seed: int) -> None:
    chaos = Chaos(seeded(seed))
    bench = chaos.bench
    for _ in range(60):
        if chaos.rng.random() < 0.3:
            chaos.break_something()
        chaos.survive()
        assert bench.journal.load() == bench.state
        check_containers(chaos)
    bench.passes(12)
    bench.assert_agrees()
    assert str(bench.passes(1)[0]) == WELL
    check_containers(chaos)
    for made in chaos.containers():
        chaos.docker.stop(made)
    for net in chaos.nets:
        chaos.docker.remove_network(net)
    bench.passes(12)
    for left in list(bench.state.networks):  # with its own IPAM Docker tells only once
        bench.call("Upkeep.Forget", What=left)
    bench.passes(1)
    bench.assert_clean()


def test_without_failures_every_call_alone_keeps_host_and_state_together() -> None:
    chaos = Chaos(seeded(99))
    for _ in range(70):
        with suppress(Refused):
            chaos.rng.choice([chaos.create, chaos.start, chaos.stop, chaos.publish, chaos.remove])()
        chaos.bench.assert_agrees()
    assert chaos.bench.world.steps > 300
