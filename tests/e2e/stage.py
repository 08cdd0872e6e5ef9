"""A host whose plugin is killed at a call that is told, beside a container that must not notice."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from tests.bed import Bed, Host, Node, Process, Snapshot, assert_no_leaks, snapshot, wait_for
from tests.e2e.helpers import FLANNEL, docker_major, inspect, web
from tests.e2e.leaving import MAY_DIFFER, baseline

CRASHER = Path(__file__).with_name("crasher.py")
VERBS = {"start": ("start",), "stop": ("stop", "-t", "0")}
AT_ONCE_S = 5  # a start is longer where the plugin is just beginning
STALE_LIMIT_S = 150  # a minute of age, and passes that come every half minute
WATCH = "while :; do curl -sf -m 5 -o /dev/null {url} || echo failed: $?; sleep 0.1; done"
SERVE = ("httpd", "-f", "-p", "80", "-h", "/www")
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

    driver: ClassVar[tuple[str, ...]] = FLANNEL
    subnet: ClassVar[tuple[str, ...]] = ()  # of a network that is made and deleted
    may_move: ClassVar[tuple[str, ...]] = GATES

    host: Host
    visitor: Node
    watch: Process | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    @contextmanager
    def opened(cls, bed: Bed) -> Iterator[Self]:
        """Start all of it; in the end see that nothing is left, and that nothing went wrong."""
        host, visitor = bed.host("h1"), bed.client("visitor")
        host.start_plugin(argv=[sys.executable, CRASHER])
        host.start_dockerd()
        host.load_image()
        made = cls(host, visitor)
        made.create("first")  # what the first network makes and no later one
        made.delete("first")
        empty = baseline(host)
        host.docker("network", "create", *cls.driver, "steady")
        web(host, "steady", "steady", "-p", "8081:80")
        wait_for(lambda: visitor.reaches(made.url(8081)), "the other container's port")
        made.watch = visitor.popen("sh", "-c", WATCH.format(url=made.url(8081)), log_name="watch")
        before = baseline(host)
        yield made
        made.as_before(before, STALE_LIMIT_S)
        made.check_untouched("all steps")
        made.watch.kill()
        made.delete("steady")
        made.as_before(empty)
        assert "internal error" not in host.plugin_log()
        assert "Traceback" not in host.plugin_log()

    def as_before(self, before: Snapshot, limit_s: float = 30) -> None:
        """Wait until the host carries what it did, the gate in either of its two places."""
        assert_no_leaks(self.host, before, ignore=(*MAY_DIFFER, *self.may_move), limit_s=limit_s)
        was, now = (
            [line for line in shot.lines.elements() if fnmatch(line, GATES[0])]
            for shot in (before, snapshot(self.host))
        )
        assert len(was) == len(now), f"{was} became {now}"

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
        words = ("network", "create", *self.driver, *self.subnet, name)
        made = self.host.docker(*words, check=check)
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


def starts_at_once_after(stage: Stage, name: str, verb: str, **order: Any) -> None:
    """Kill the plugin while a container starts or stops: the next start has its place at once."""
    what = f"a kill during {verb} {order}"
    stage.arm(**order)
    stage.host.docker(*VERBS[verb], name, check=False)
    wait_for(lambda: stage.report()["kills"], what)
    if verb == "stop" or not inspect(stage.host, "container", name)["State"]["Running"]:
        began = time.monotonic()
        stage.host.docker("start", name)
        assert time.monotonic() - began < AT_ONCE_S, what
    assert stage.visitor.reaches(stage.url(8080)), what
    if verb == "start":
        stage.host.docker(*VERBS["stop"], name)


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
