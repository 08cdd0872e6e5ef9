"""`init`, `join` and `leave` killed between any two steps, and run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from ipaddress import IPv4Network
from itertools import count
from pathlib import Path

import pytest

from driver.flannel.records import config_key
from driver.setup.certificates import make
from driver.setup.entering import join
from driver.setup.etcd_server import UNIT as ETCD
from driver.setup.first_host import Network, init
from driver.setup.leaving import leave
from driver.setup.token import Token
from tests.unit.setup.fake_machine import CONFIG, IP, PREFIX, World

TOKEN = Token("http://192.0.2.1:2379", PREFIX).encode()


class Killed(BaseException):
    """The end of the process."""


def killing_after(steps: int) -> Callable[[], None]:
    left = [steps]

    def step() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return step


def joins(world: World) -> None:
    join(world.machine, TOKEN, {"FLANNELD_IFACE": "eth0"})


def inits(world: World) -> None:
    init(world.machine, None, PREFIX, Network(IPv4Network("10.2.0.0/16")), {})


def leaves(world: World) -> None:
    leave(world.machine)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates: to make them takes most of the time of an `init`."""
    folder = tmp_path_factory.mktemp("certificates")
    make(folder, (IP,))
    return folder


def new(folder: Path, certificates: Path | None) -> World:
    """Return a machine; without certificates for its own etcd, there is another etcd."""
    world = World(folder)
    world.settings.write_text("FLANNELD_IFACE=eth1\n")
    if certificates:
        shutil.copytree(certificates, world.place.folder)
    else:
        world.registry.change((config_key(PREFIX), CONFIG))
    return world


@pytest.mark.parametrize(("enters", "fewest"), [(joins, 9), (inits, 12)])
def test_a_second_run_completes_the_first(
    enters: Callable[[World], None], fewest: int, tmp_path: Path, certificates: Path
) -> None:
    kills, fresh = {"enter": 0, "leave": 0}, count()
    for name in ("enter", "leave"):
        whole = None
        while True:
            world = new(tmp_path / str(next(fresh)), certificates if enters is inits else None)
            run = enters
            if name == "leave":
                enters(world)
                run = leaves
            world.step = killing_after(-1 if whole is None else kills[name])
            if whole is None:
                world.step = lambda: None
            try:
                run(world)
            except Killed:
                world.step = lambda: None
                run(world)
                kills[name] += 1
                assert states(world) == whole, f"{name}, killed after {kills[name] - 1} steps"
                continue
            if whole is not None:
                break
            whole = states(world)
    assert kills["enter"] >= fewest
    assert kills["leave"] >= fewest - 4


@pytest.mark.parametrize("enters", [joins, inits])
def test_leave_undoes_what_was_killed(
    enters: Callable[[World], None], tmp_path: Path, certificates: Path
) -> None:
    for kills in count():
        own = certificates if enters is inits else None
        world, before = new(tmp_path / str(kills), own), new(tmp_path / f"{kills}-before", own)
        world.step = killing_after(kills)
        try:
            enters(world)
        except Killed:
            world.step = lambda: None
            leave(world.machine)
            assert states(world)["files"] == states(before)["files"], f"killed after {kills} steps"
            continue
        break
    assert kills >= 9


def states(world: World) -> dict[str, object]:
    """Return what is left, without the names of the folder and the revisions."""
    found = world.standing()
    files = found["files"]
    assert isinstance(files, dict)
    texts = {name: text.replace(str(world.folder), "") for name, text in files.items()}
    at_boot = world.services.enabled(ETCD)
    return {**found, "files": texts, "etcd": (at_boot, world.services.active(ETCD))}
