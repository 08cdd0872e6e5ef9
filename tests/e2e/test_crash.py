"""The plugin is killed at every call of a create and of a delete, and started again at once.

Containers keep running, the next command works, and in the end nothing is left. What a crash
leaves behind goes when it is a minute old: while later steps run, and at the end of the module.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bed import Bed
from tests.e2e.helpers import address
from tests.e2e.stage import DELETE, SERVE, Stage, crash, starts_at_once_after

SEED = 91


@pytest.fixture(scope="module")
def stage(bed: Bed) -> Iterator[Stage]:
    with Stage.opened(bed) as made:
        yield made


def test_the_calls_are_known(stage: Stage) -> None:
    stage.arm()
    stage.create("plain")
    assert stage.calls() == stage.create_calls
    stage.arm()
    stage.delete("plain")
    assert stage.calls() == DELETE
    assert stage.report()["kills"] == 0


def crash_in_create(stage: Stage, **order: Any) -> None:
    name = f"made{next(stage.numbers)}"
    what = crash(stage, lambda: stage.create(name, check=False), stage.create_calls, **order)
    stage.delete(name, check=False)
    stage.check_whole_life(what)


def crash_in_delete(stage: Stage, **order: Any) -> None:
    name = f"gone{next(stage.numbers)}"
    stage.create(name)
    what = crash(stage, lambda: stage.delete(name, check=False), DELETE, **order)
    stage.delete(name, check=False)
    stage.check_whole_life(what)


@pytest.mark.parametrize("mode", ["before", "after"])
def test_at_every_call_of_a_create(stage: Stage, mode: str) -> None:
    for at in range(1, len(stage.create_calls) + 1):
        crash_in_create(stage, at=at, mode=mode)


@pytest.mark.parametrize("mode", ["before", "after"])
def test_at_every_call_of_a_delete(stage: Stage, mode: str) -> None:
    for at in range(1, len(DELETE) + 1):
        crash_in_delete(stage, at=at, mode=mode)


def test_in_the_middle_of_a_call(stage: Stage) -> None:
    dice = random.Random(SEED)  # noqa: S311 - to be the same each time
    for crash_in, calls in ((crash_in_create, stage.create_calls), (crash_in_delete, DELETE)):
        for at in range(1, len(calls) + 1):
            crash_in(stage, at=at, mode="during", delay_s=dice.uniform(0, 0.004))


def test_an_address_asked_for_by_name_is_had_at_once_after_a_crash(stage: Stage) -> None:
    host, options = stage.host, ("--name", "named", "--ip", "10.2.9.3", "-p", "8080:80")
    host.docker("network", "create", *stage.driver, "--subnet", "10.2.9.0/28", "named")
    host.docker("create", "--network", "named", *options, "box", *SERVE)
    starts_at_once_after(stage, "named", "start", at=1, mode="after")  # RequestAddress
    starts_at_once_after(stage, "named", "start", at=2, mode="after")  # CreateEndpoint
    for delay_ms in (1, 2, 3, 4):
        starts_at_once_after(stage, "named", "start", at=2, mode="during", delay_s=delay_ms / 1000)
    host.docker("start", "named")
    for at in (3, 4):  # DeleteEndpoint, ReleaseAddress
        starts_at_once_after(stage, "named", "stop", at=at, mode="before")
    assert address(host, "named", "named") == "10.2.9.3"
    stage.delete("named")
    stage.check_untouched("all of it")
