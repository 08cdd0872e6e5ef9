"""Which containers are started because Docker gave up on them, and how."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

import pytest

from driver.api.body import Body
from driver.docker.engine import Engine, Exited
from driver.docker.given_up import GivenUp, given_up
from driver.errors import BadRequest, Unavailable
from driver.standin import ABSENT

DIAL = 'Post "http://plugin.moby.localhost/IpamDriver.RequestAddress": dial unix '
SOCKET = "/run/docker/plugins/flannel.sock: connect: "


def exited(name: str, policy: str = "always", error: str = ABSENT) -> Exited:
    return Exited(f"id-{name}", name, policy, error)


def no_body() -> str:
    with pytest.raises(BadRequest) as refused:
        Body.decode(b"")
    return str(refused.value)


@pytest.mark.parametrize(
    "error",
    [
        f"IpamDriver.RequestAddress: {ABSENT}",
        f"failed to set up container networking: NetworkDriver.CreateEndpoint: {ABSENT}",
        'failed to set up container networking: plugin "flannel" not found',
        f"{DIAL}{SOCKET}no such file or directory",
        f"{DIAL}{SOCKET}connection refused",
        f"IpamDriver.RequestAddress: {no_body()}",
    ],
)
def test_without_the_plugin_it_did_not_start(error: str) -> None:
    mine = [exited("a", policy, error) for policy in ("always", "unless-stopped", "on-failure")]
    assert given_up([*mine, exited("b", "no", error), exited("c", "", error)]) == mine


@pytest.mark.parametrize(
    "error",
    [
        "",
        "NetworkDriver.ProgramExternalConnectivity: Bind for 0.0.0.0:80 failed: port is in use",
        'plugin "weave" not found',
        'exec: "flannel": executable file not found in $PATH',
    ],
)
def test_it_is_not_for_other_reasons(error: str) -> None:
    assert given_up([exited("a", error=error)]) == []


@dataclass(frozen=True, slots=True)
class Fake(Engine):
    """A Docker whose containers start, or fail for a reason of their own."""

    ended: dict[str, Exited] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    started: list[str] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)
    later: dict[str, Exited] = field(default_factory=dict)

    def exited(self) -> list[Exited]:
        """Return what ended; the second time also what fails late."""
        if self.closed.is_set():
            raise Unavailable("Docker does not list its containers: it is asleep")
        self.asked.append(1)
        if len(self.asked) == 2:
            self.ended.update(self.later)
        return list(self.ended.values())

    def start(self, container: str) -> None:
        """Start it."""
        self.started.append(container)
        if container in self.broken:
            self.ended[container] = self.ended[container]._replace(error="no such command")
            raise Unavailable("no such command")
        del self.ended[container]


def docker(*ended: Exited, broken: tuple[str, ...] = (), later: tuple[Exited, ...] = ()) -> Fake:
    return Fake(ended={e.id: e for e in ended}, broken=broken, later={e.id: e for e in later})


def run(engine: Fake, process: int = 7, patience_s: float = 60) -> list[str]:
    """Run it to its end; return what it tells."""
    told: list[str] = []
    GivenUp(engine, lambda: process, told.extend, again_s=0.01, patience_s=patience_s).run()
    return told


def test_they_are_started_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = docker(exited("a"), exited("no", "no"), exited("b"), later=(exited("c"),))
    told = run(engine)
    assert sorted(engine.started) == ["id-a", "id-b", "id-c"]
    words = "it had failed without docker-flannel"
    assert sorted(told) == [f"started container {name}: {words}" for name in "abc"]
    assert [record.message for record in caplog.records].count(told[0]) == 1


def test_one_that_fails_for_its_own_reason_is_not_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = docker(exited("a"), exited("bad"), broken=("id-bad",))
    assert len(run(engine)) == 1
    assert engine.started.count("id-bad") == 1
    assert "container bad does not start: no such command" in caplog.text


def test_a_dockerd_that_does_not_run_is_not_asked() -> None:
    engine = docker(exited("a"))
    assert run(engine, process=0) == []
    assert not engine.asked


def test_a_dockerd_that_starts_is_waited_for() -> None:
    engine = docker(exited("a"))
    engine.closed.set()
    threading.Timer(0.2, engine.closed.clear).start()
    assert len(run(engine)) == 1


def test_a_docker_that_cannot_be_asked_is_told(caplog: pytest.LogCaptureFixture) -> None:
    engine = docker(exited("a"))
    engine.closed.set()
    assert run(engine, patience_s=0.1) == []
    assert "it is asleep: `docker start` what it gave up on, see `docker ps -a`" in caplog.text
    assert len(caplog.records) == 1
