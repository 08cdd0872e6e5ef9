"""The plugin is killed at every call of a create and of a delete, and started again at once.

Containers keep running, the next command works, and in the end nothing is left. What a crash
leaves behind goes when it is a minute old: while later steps run, and at the end of the module.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Bed, Host, Node, Process, Snapshot, assert_no_leaks, snapshot, wait_for
from tests.e2e.conftest import MAY_DIFFER
from tests.e2e.helpers import FLANNEL, baseline, docker_major, inspect, network, web

CRASHER = Path(__file__).with_name("crasher.py")
STALE_LIMIT_S = 150  # a minute of age, and passes that come every half minute
WATCH = "while :; do curl -sf -m 5 -o /dev/null {url} || echo failed: $?; sleep 0.1; done"
SERVE = ("httpd", "-f", "-p", "80", "-h", "/www")
SEED = 91
# The gate goes to FORWARD when the plugin starts in the moment in which Docker, at every network
# that is made, takes its jump to DOCKER-USER away to put it first again. It stays there: all the
# same to packets.
GATES = (
    "iptables: * -j DKFLANNEL-FORWARD",
    'nft: rule ip filter *{"target": "DKFLANNEL-FORWARD"}*',
)

CREATE = [  # of Docker 20.10
    "IpamDriver.RequestPool",
    "IpamDriver.RequestAddress",
    "NetworkDriver.CreateNetwork",
    "IpamDriver.RequestAddress",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.EndpointOperInfo",
    "NetworkDriver.EndpointOperInfo",
]
DELETE = [
    "NetworkDriver.RevokeExternalConnectivity",
    "NetworkDriver.Leave",
    "NetworkDriver.DeleteEndpoint",
    "IpamDriver.ReleaseAddress",
    "IpamDriver.ReleaseAddress",
    "IpamDriver.ReleasePool",
    "NetworkDriver.DeleteNetwork",
]


@dataclass
class Stage:
    """A host whose plugin can be killed, and a container there that has nothing to do with it."""

    host: Host
    visitor: Node
    watch: Process | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @cached_property
    def create_calls(self) -> list[str]:
        """What this Docker calls for a create; a delete is the same for all."""
        major = docker_major(self.host)
        spaces = 0 if major < 24 else 1 if major < 27 else 2
        once = len(CREATE) - 1 if major >= 28 else len(CREATE)
        return ["IpamDriver.GetDefaultAddressSpaces"] * spaces + CREATE[:once]

    def url(self, port: int) -> str:
        return f"http://{self.host.address}:{port}/"

    def create(self, name: str, *, check: bool = True) -> None:
        """What a user types, in one go."""
        made = self.host.docker("network", "create", *FLANNEL, name, check=check)
        if made.ok:
            options = ("-d", "--name", name, "--network", name, "-p", "8080:80")
            self.host.docker("run", *options, "box", *SERVE, check=check)

    def delete(self, name: str, *, check: bool = True) -> None:
        self.host.docker("rm", "-f", name, check=check)
        self.host.docker("network", "rm", name, check=check)

    def arm(self, **order: Any) -> None:
        assert self.host.call("Crasher.Arm", order) == (200, {})

    def calls(self) -> Any:
        return self.report()["calls"]

    def report(self) -> Any:
        status, told = self.host.call("Crasher.Report")
        assert status == 200
        return told

    def check_untouched(self, what: str) -> None:
        """The other container runs on, and has answered all the time."""
        state = inspect(self.host, "container", "steady")["State"]
        assert state["Running"], what
        assert self.visitor.fetch(self.url(8081)) == "steady\n", what
        assert self.watch is not None, what
        assert self.watch.running(), what
        assert self.watch.log() == "", f"{what}: the other container did not answer all the time"

    def check_whole_life(self, what: str) -> None:
        """All works now without a crash."""
        name = f"again{next(self.numbers)}"
        try:
            self.create(name)
            wait_for(lambda: self.visitor.reaches(self.url(8080)), "the port")
            self.delete(name)
        except AssertionError as error:
            error.add_note(f"after {what}")
            raise


def as_before(host: Host, before: Snapshot, limit_s: float = 30) -> None:
    """Wait until the host carries what it did, the gate in either of its two places."""
    assert_no_leaks(host, before, ignore=(*MAY_DIFFER, *GATES), limit_s=limit_s)
    was, now = (
        [line for line in shot.lines.elements() if fnmatch(line, GATES[0])]
        for shot in (before, snapshot(host))
    )
    assert len(was) == len(now), f"{was} became {now}"


@pytest.fixture(scope="module")
def stage(bed: Bed) -> Iterator[Stage]:
    host, visitor = bed.host("h1"), bed.client("visitor")
    host.start_plugin(argv=[sys.executable, CRASHER])
    host.start_dockerd()
    host.load_image()
    made = Stage(host, visitor)
    made.create("first")  # what the first network makes and no later one
    made.delete("first")
    empty = baseline(host)
    network(host, "steady")
    web(host, "steady", "steady", "-p", "8081:80")
    wait_for(lambda: visitor.reaches(made.url(8081)), "the other container's port")
    made.watch = visitor.popen("sh", "-c", WATCH.format(url=made.url(8081)), log_name="watch")
    before = baseline(host)
    yield made
    as_before(host, before, STALE_LIMIT_S)
    made.check_untouched("all steps")
    made.watch.kill()
    made.delete("steady")
    as_before(host, empty)
    assert "internal error" not in host.plugin_log()
    assert "Traceback" not in host.plugin_log()


def test_the_calls_are_known(stage: Stage) -> None:
    stage.arm()
    stage.create("plain")
    assert stage.calls() == stage.create_calls
    stage.arm()
    stage.delete("plain")
    assert stage.calls() == DELETE
    assert stage.report()["kills"] == 0


def crash(stage: Stage, action: Callable[[], None], calls: list[str], **order: Any) -> str:
    """Do something during which the plugin is killed; give the words for what was done."""
    what = f"a kill {order['mode']} call {order['at']}, {calls[order['at'] - 1]} ({order})"
    stage.arm(**order)
    action()
    told = stage.report()
    assert told["kills"] == 1, f"{what}: {told}"
    assert told["calls"][: order["at"]] == calls[: order["at"]], f"{what}: {told}"
    stage.check_untouched(what)
    return what


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
