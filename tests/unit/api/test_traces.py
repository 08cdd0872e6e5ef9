"""Whole lives of a container, with the bodies that dockerd was seen to send (wire/*.json).

From libnetwork.md, section 13; ids are filled in, and what this plugin answers stands beside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from driver.flannel.local_source import LocalSource
from driver.handlers import CALLS
from driver.standin import STATIC
from tests.unit.bench import Bench, make_core
from tests.unit.docker import Docker, direct, port
from tests.unit.plugin import Plugin

FOLDER = Path(__file__).parent / "wire"
TRACES = sorted(path.stem for path in FOLDER.glob("*.json"))
LIVES = ["20.10-life", "28.5-life"]
LOST = [
    "NetworkDriver.RevokeExternalConnectivity",
    "NetworkDriver.Leave",
    "NetworkDriver.DeleteEndpoint",
    "IpamDriver.ReleaseAddress",
    "IpamDriver.ReleasePool",
    "NetworkDriver.DeleteNetwork",
]
SUBNET_ENV = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.5.1/24
FLANNEL_MTU=1450
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    file = tmp_path / "subnet.env"
    file.write_text(SUBNET_ENV)
    return make_core(LocalSource("subnet-file", IPv4Network("10.2.0.0/16"), 24, file))


def steps(trace: str) -> Iterator[tuple[str, Any, Any]]:
    for step in json.loads((FOLDER / f"{trace}.json").read_text()):
        yield step["call"], step["body"], step["reply"]


def filled(value: Any, pool_id: str) -> Any:
    return json.loads(json.dumps(value).replace("$PoolID", pool_id))


class Replay:
    """Plays a trace against a plugin and compares every answer."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.pool_id = bench, ""
        self.plugin = Plugin(bench.core)

    def restart(self) -> None:
        self.bench.boot()
        self.plugin = Plugin(self.bench.core)

    def play(self, call: str, body: Any, reply: Any) -> None:
        got = self.plugin.call(call, filled(body, self.pool_id))
        if call == "IpamDriver.RequestPool":
            self.pool_id = got["PoolID"]
        assert got == filled(reply, self.pool_id), call
        end = f"flc{body['EndpointID'][:12]}" if body and "EndpointID" in body else ""
        if call == "NetworkDriver.Join":
            self.bench.kernel.moved.add(end)
        elif call == "NetworkDriver.Leave":
            self.bench.kernel.moved.discard(end)
        self.bench.assert_agrees()


def gives_something_new(call: str, body: Any) -> bool:
    """Whether a call that is made twice rightly gives two objects."""
    return call == "IpamDriver.RequestPool" or (
        call == "IpamDriver.RequestAddress" and not body["Options"]
    )


@pytest.mark.parametrize("trace", TRACES)
def test_a_life_leaves_nothing_behind(trace: str, bench: Bench) -> None:
    replay, most = Replay(bench), 0
    for call, body, reply in steps(trace):
        replay.play(call, body, reply)
        most = max(most, len(bench.observed()))
    assert most > 12, "the life has shown nothing on the host"
    bench.assert_clean()


@pytest.mark.parametrize("trace", TRACES)
def test_every_call_can_be_made_twice(trace: str, bench: Bench) -> None:
    replay = Replay(bench)
    for call, body, reply in steps(trace):
        replay.play(call, body, reply)
        if not gives_something_new(call, body):
            before = bench.observed(), bench.state
            replay.play(call, body, reply)
            assert (bench.observed(), bench.state) == before, call
    bench.assert_clean()


@pytest.mark.parametrize(
    ("trace", "restart"), [*((trace, False) for trace in TRACES), *((life, True) for life in LIVES)]
)
def test_a_restart_or_a_pass_between_all_calls_changes_nothing(
    trace: str, bench: Bench, *, restart: bool
) -> None:
    replay = Replay(bench)
    for call, body, reply in steps(trace):
        replay.play(call, body, reply)
        before = bench.observed(), bench.state
        if restart:
            replay.restart()
        else:
            bench.passes(1, apart_s=1.0)
        assert (bench.observed(), bench.state) == before, call
    bench.assert_clean()


@pytest.mark.parametrize("trace", LIVES)
@pytest.mark.parametrize("lost", LOST)
def test_what_docker_does_not_give_back_is_found(trace: str, lost: str, bench: Bench) -> None:
    replay = Replay(bench)
    for call, body, reply in steps(trace):
        if call != lost:
            replay.play(call, body, reply)
        elif call == "NetworkDriver.Leave":
            bench.kernel.moved.clear()  # Docker moves the container end back all the same
    bench.passes(6)
    bench.assert_clean()


@pytest.mark.parametrize("trace", LIVES)
def test_the_model_of_docker_calls_as_dockerd_does(trace: str, bench: Bench) -> None:
    made: list[tuple[str, set[str]]] = []
    send = direct(bench)

    def noting(call: str, body: dict[str, Any]) -> dict[str, Any]:
        made.append((call, set(body)))
        return send(call, body)

    docker = Docker(bench, noting)
    net = docker.create_network()
    docker.stop(docker.start(net, port(80, 8080)))
    docker.remove_network(net)
    unneeded = {*STATIC, "NetworkDriver.EndpointOperInfo"}
    assert made == [(call, set(body)) for call, body, _ in steps(trace) if call not in unneeded]


def test_the_traces_make_every_call_but_those_of_swarm_and_old_ones() -> None:
    made = {call for trace in TRACES for call, _, _ in steps(trace)}
    assert {*CALLS, *STATIC} - made == {
        "NetworkDriver.AllocateNetwork",
        "NetworkDriver.FreeNetwork",
        "Upkeep.Forget",
        "Upkeep.Adopt",
        "NetworkDriver.GwAllocCheck",
        "NetworkDriver.DiscoverNew",
        "NetworkDriver.DiscoverDelete",
    }
