"""The plugin is killed at every step of `-d flannel` with nothing else, and started again at once.

A container that starts gets its lease address all the same: at the latest from the pass with
which the plugin begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import pytest

from tests.bed import Bed, wait_for
from tests.e2e.short_form import settled
from tests.e2e.stage import DELETE, SERVE, Stage, crash, starts_at_once_after


@dataclass
class Short(Stage):
    """The same with networks that only name the driver."""

    driver = ("-d", "flannel")
    subnet = ("--subnet", "172.28.0.0/16")
    may_move = ()

    @cached_property
    def create_calls(self) -> list[str]:
        """What this Docker calls for a create: IPAM is its own."""
        return [call for call in super().create_calls if call.startswith("NetworkDriver")]

    def runs(self, name: str) -> bool:
        """Whether a container came up in spite of all."""
        return bool(self.host.docker("ps", "-q", "--filter", f"name=^{name}$").stdout)


@pytest.fixture(scope="module")
def stage(bed: Bed) -> Iterator[Short]:
    with Short.opened(bed) as made:
        yield made
        settled(made.host, "steady", "steady")


@pytest.mark.parametrize("mode", ["before", "after"])
def test_at_every_call_of_a_create(stage: Short, mode: str) -> None:
    came_up = 0
    for at in range(1, len(stage.create_calls) + 1):
        name = f"made{next(stage.numbers)}"
        act = partial(stage.create, name, check=False)
        crash(stage, act, stage.create_calls, at=at, mode=mode)
        if stage.runs(name):
            came_up += 1
            settled(stage.host, name, name)
        stage.delete(name, check=False)
    assert came_up, "no crash was survived"
    stage.check_whole_life(mode)


@pytest.mark.parametrize("mode", ["before", "after"])
def test_at_every_call_of_a_delete(stage: Short, mode: str) -> None:
    calls = [call for call in DELETE if call.startswith("NetworkDriver")]
    for at in range(1, len(calls) + 1):
        name = f"gone{next(stage.numbers)}"
        stage.create(name)
        crash(stage, partial(stage.delete, name, check=False), calls, at=at, mode=mode)
        stage.delete(name, check=False)
    stage.check_whole_life(mode)


def test_right_after_the_last_call(stage: Short) -> None:
    """Up to Docker 26 the interface is put into the sandbox then, and nobody hears of it."""
    for delay_ms in (0, 10, 20, 40, 80):
        name = f"late{delay_ms}"
        order = {"at": len(stage.create_calls), "mode": "during", "delay_s": delay_ms / 1000}

        def act(name: str = name) -> None:
            stage.create(name)
            wait_for(lambda: stage.report()["kills"], "the kill")

        crash(stage, act, stage.create_calls, **order)
        assert stage.runs(name)
        settled(stage.host, name, name)
        stage.delete(name, check=False)


def test_the_address_that_docker_gives_again_is_had_at_once_after_a_crash(stage: Short) -> None:
    host = stage.host
    host.docker("network", "create", *stage.driver, *stage.subnet, "again")
    host.docker("create", "--name", "again", "--network", "again", "-p", "8080:80", "box", *SERVE)
    starts_at_once_after(stage, "again", "start", at=1, mode="after")  # CreateEndpoint
    for delay_ms in (1, 2, 3, 4):
        starts_at_once_after(stage, "again", "start", at=1, mode="during", delay_s=delay_ms / 1000)
    host.docker("start", "again")
    starts_at_once_after(stage, "again", "stop", at=3, mode="before")  # DeleteEndpoint
    settled(host, "again", "again")
    stage.delete("again")
    stage.check_untouched("all of it")
