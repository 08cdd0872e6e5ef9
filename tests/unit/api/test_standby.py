"""The plugin while something keeps it from working."""

from __future__ import annotations

import json
import threading
from typing import Any
from wsgiref.types import WSGIApplication

import pytest

from driver.api.standby import Standby
from driver.errors import BadRequest, StoreError
from driver.handlers import CALLS
from driver.standin import AWAY, STATIC
from tests.bed import wait_for


def ask(app: WSGIApplication, method: str, what: str) -> tuple[int, Any]:
    """Return status and decoded body."""
    told: list[str] = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": what}
    body = b"".join(app(environ, lambda status, _headers: told.append(status)))  # type: ignore[arg-type]
    return int(told[0].split()[0]), json.loads(body)


class Parts:
    """What the plugin is made of: `wrong` until it is None."""

    def __init__(self, wrong: Exception | None) -> None:
        self.wrong, self.tried = wrong, 0

    def make(self) -> WSGIApplication:
        self.tried += 1
        if self.wrong is not None:
            raise self.wrong

        def application(_: Any, start: Any) -> list[bytes]:
            start("200 OK", [])
            return [b'"at work"']

        return application


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            StoreError("state file /x is on fire; put it out"),
            "state file /x is on fire; put it out",
        ),
        (BadRequest("--network 'here' is bad"), "--network 'here' is bad"),
        (ImportError("no module named 'flask'"), "no module named 'flask'; install or repair what"),
        (OSError(2, "libnftables.so.1 cannot\nopen"), "libnftables.so.1 cannot open; install"),
        (KeyError("x"), "docker-flannel is not available: KeyError 'x'; it is tried again"),
    ],
)
def test_every_call_tells_what_is_wrong_and_docker_finds_the_plugin(
    wrong: Exception, words: str
) -> None:
    app = Standby(Parts(wrong).make)
    for method, reply in STATIC.items():
        assert ask(app, "POST", f"/{method}") == (200, reply)
    for method, what in [*(("POST", f"/{call}") for call in CALLS), ("GET", "/status")]:
        status, reply = ask(app, method, what)
        assert status not in (200, 404)
        assert reply["Err"] == reply["Error"]
        assert reply["Err"].startswith(f"{AWAY}: ")
        assert words in reply["Err"]
        assert reply["Err"].isprintable()


def threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("standby")


def test_it_works_as_soon_as_it_can() -> None:
    parts = Parts(StoreError("not yet"))
    before = threads()
    app = Standby(parts.make, retry_s=0.01)
    assert threads() == before + 1
    assert ask(app, "POST", "/NetworkDriver.Join")[0] == 500
    wait_for(lambda: parts.tried > 2, "more attempts")
    parts.wrong = None
    wait_for(lambda: ask(app, "GET", "/status") == (200, "at work"), "the plugin")
    wait_for(lambda: threads() == before, "the thread to end")


def test_a_bad_setting_stays_bad() -> None:
    parts = Parts(BadRequest("bad"))
    before = threads()
    Standby(parts.make, retry_s=0.01)
    assert threads() == before
    assert parts.tried == 1


def test_a_slow_start_keeps_docker_waiting_for_a_while_only() -> None:
    slow, parts = threading.Event(), Parts(None)

    def make() -> WSGIApplication:
        slow.wait()
        return parts.make()

    app = Standby(make, patience_s=0.01)
    status, reply = ask(app, "POST", "/NetworkDriver.Join")
    assert status == 500
    assert reply["Err"] == "docker-flannel is not available: it is starting"
    slow.set()
    wait_for(lambda: ask(app, "GET", "/status") == (200, "at work"), "the plugin")
    assert parts.tried == 1
