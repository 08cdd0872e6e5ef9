"""Names beside ids, and how the service comes to know them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from driver.docker import naming
from driver.docker.engine import Container, Names
from driver.docker.naming import KnownNames, named

NET, END = "a" * 12 + "0" * 52, "b" * 12 + "0" * 52
NAMES = Names({NET: "app"}, {END: Container("8" * 64, "web")})


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("network aaaaaaaaaaaa is odd", "network aaaaaaaaaaaa (app) is odd"),
        ("network=aaaaaaaaaaaa: odd", "network=aaaaaaaaaaaa (app): odd"),
        ("by endpoint bbbbbbbbbbbb", "by endpoint bbbbbbbbbbbb (container web)"),
        ("the MTU of fl-aaaaaaaaaaaa", "the MTU of fl-aaaaaaaaaaaa (network app)"),
        ("flhbbbbbbbbbbbb lacks", "flhbbbbbbbbbbbb (container web) lacks"),
        ("endpoint cccccccccccc", "endpoint cccccccccccc"),
        ("endpoint aaaaaaaaaaaa, network bbbbbbbbbbbb", None),
        (f"network {NET}", None),
        ("networks aaaaaaaaaaaa", None),
        ("nothing", None),
    ],
)
def test_a_name_is_put_behind_its_id(text: str, want: str | None) -> None:
    assert named(text, NAMES) == (want or text)
    assert named(named(text, NAMES), NAMES) == (want or text), "once"
    assert named(text, Names()) == text


def test_a_name_moves_no_terminal() -> None:
    assert named("network aaaaaaaaaaaa", Names({NET: "\x1b[2J\n"})).isprintable()


class Asked:
    """Docker, with what it answers, and whether it runs."""

    def __init__(self) -> None:
        self.answer, self.process, self.times = NAMES, 7, 0

    def __call__(self) -> Names:
        self.times += 1
        return self.answer


@pytest.fixture
def docker() -> Asked:
    return Asked()


@pytest.fixture
def known(docker: Asked) -> KnownNames:
    return KnownNames(docker, lambda: docker.process)


def test_names_are_known_from_the_last_answer(known: KnownNames, docker: Asked) -> None:
    assert known("network aaaaaaaaaaaa") == "network aaaaaaaaaaaa"
    known.look()
    docker.answer = Names()
    known.look()
    assert known("network aaaaaaaaaaaa") == "network aaaaaaaaaaaa (app)", "no answer is no news"
    docker.answer = Names({NET: "other"})
    known.look()
    assert known("network aaaaaaaaaaaa") == "network aaaaaaaaaaaa (other)"


def test_a_docker_that_does_not_run_is_not_asked(known: KnownNames, docker: Asked) -> None:
    docker.process = 0
    known.look()
    assert docker.times == 0


def test_what_is_logged_has_the_names(known: KnownNames, caplog: pytest.LogCaptureFixture) -> None:
    known.look()
    caplog.handler.addFilter(known)
    logging.getLogger("driver.x").warning("network %s is odd: %d%%", "aaaaaaaaaaaa", 7)
    caplog.handler.removeFilter(known)
    assert caplog.messages == ["network aaaaaaaaaaaa (app) is odd: 7%"]


def test_a_bad_message_ends_nothing(known: KnownNames) -> None:
    known.look()
    bad = logging.LogRecord("x", logging.INFO, "x", 1, "%d", ("network",), None)
    assert known.filter(bad)
    assert (bad.msg, bad.args) == ("%d", ("network",))


def test_docker_is_asked_once_soon_after_the_calls_that_bring_names(
    known: KnownNames, docker: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = threading.Semaphore(0)
    pauses: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        slept.acquire()

    monkeypatch.setattr(
        naming, "time", type("Time", (), {"sleep": sleep, "monotonic": time.monotonic})
    )
    threading.Thread(target=known.run, daemon=True).start()
    wait(lambda: len(pauses) == 1)
    for _ in range(3):
        known.outdate()
    assert docker.times == 0
    slept.release()
    wait(lambda: docker.times == 1)
    known.outdate()
    wait(lambda: len(pauses) == 2)
    slept.release()
    wait(lambda: docker.times == 2)
    assert len(pauses) == 2
    assert min(pauses) >= naming.SOON_S


def wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)
