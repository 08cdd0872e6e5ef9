"""The plugin dies at every point of a life, and is started anew on what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from driver.core.desire import desire
from driver.model.objects import Veth
from tests.unit.bench import WELL, Bench, make_core
from tests.unit.docker import Docker, Refused, direct, port
from tests.unit.fakes import Crash

T = TypeVar("T")


def again(action: Callable[[], T]) -> T:
    """Do what a user does: type it once more."""
    try:
        return action()
    except Refused:
        return action()


def life(docker: Docker) -> None:
    net = again(docker.create_network)
    inner = again(lambda: docker.create_network(internal=True))
    web = again(lambda: docker.start(net, port(80, 8080), port(81, 9000, 9005)))
    store = again(lambda: docker.start(inner))
    again(lambda: docker.publish(web, port(80, 8080), port(53, 53, proto=17, host="10.0.0.1")))
    docker.stop(web)
    docker.stop(store)
    docker.remove_network(net)
    docker.remove_network(inner)


def steps_of_a_life() -> int:
    bench = make_core()
    life(Docker(bench))
    bench.assert_clean()
    return bench.world.steps


STEPS = range(make_core().world.steps + 1, steps_of_a_life() + 1)
PARTS = 8


def boots_well(bench: Bench) -> None:
    """All is as it should be, but for veths that went: those of sandboxes are not made again."""
    wanted, found = desire(bench.state, bench.core.facts), bench.observed()
    assert found <= wanted
    assert all(isinstance(item, Veth) for item in wanted - found)
    assert bench.journal.load() == bench.state


def checked(bench: Bench) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """Send as Docker does; after a crash the new process has put everything right at once."""
    send = direct(bench)

    def check(method: str, body: dict[str, Any]) -> dict[str, Any]:
        core = bench.core
        try:
            return send(method, body)
        finally:
            if bench.core is not core:
                boots_well(bench)

    return check


def test_a_life_has_many_steps() -> None:
    assert len(STEPS) > 100


@pytest.mark.parametrize("part", range(PARTS))
def test_a_crash_at_any_step_leaves_nothing_and_stops_nothing(part: int) -> None:
    for step in STEPS[part::PARTS]:
        bench = make_core()
        bench.world.crash_at = step
        life(Docker(bench, checked(bench)))
        assert bench.world.steps >= step, "nothing has crashed"
        bench.passes(4, apart_s=61.0)
        bench.assert_clean()
        assert str(bench.passes(1)[0]) == WELL, step


@pytest.mark.parametrize("part", range(PARTS))
def test_a_machine_that_stops_at_any_step_comes_back_without_its_containers(part: int) -> None:
    for step in STEPS[part :: 4 * PARTS]:
        bench = make_core()
        bench.world.crash_at = step
        with pytest.raises(Crash):
            life(Docker(bench, lambda method, body: bench.call(method, **body)))
        for adapter in bench.adapters:
            adapter.objects.clear()
        bench.boot()
        bench.passes(6)
        bench.assert_agrees()
        assert not bench.state.endpoints
        assert not any(isinstance(t, Veth) for t in bench.observed())
        assert {h.why for h in bench.state.holds.values()} <= {"gateway"}
        docker = Docker(bench, serial=100)
        docker.start(docker.create_network(), port(80, 8080))
        bench.assert_agrees()


@pytest.mark.parametrize("part", range(PARTS))
def test_a_crash_during_the_boot_pass_is_made_good_by_the_next(part: int) -> None:
    """The host has been emptied, so that the boot pass has everything to make."""
    whole = make_core()
    docker = Docker(whole)
    docker.start(docker.create_network(), port(80, 8080))
    for adapter in whole.adapters:
        adapter.objects.clear()
    before = whole.world.steps
    whole.boot()
    for step in range(part + 1, whole.world.steps - before + 1, PARTS):
        bench = make_core()
        docker = Docker(bench)
        docker.start(docker.create_network(), port(80, 8080))
        for adapter in bench.adapters:
            adapter.objects.clear()
        bench.world.crash_at = bench.world.steps + step
        with pytest.raises(Crash):
            bench.boot()
        bench.boot()
        assert bench.observed() == {t for t in whole.observed() if not isinstance(t, Veth)}
