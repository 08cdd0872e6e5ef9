"""`docker-flannel check`: what is asked, what is shown, the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driver.__main__ import _Program, main
from driver.docker.engine import Engine
from driver.errors import HostError, Unavailable
from driver.flannel.etcd.settings import EtcdSettings
from driver.model.facts import Facts
from driver.model.preflight import BRIDGE, Preflight
from driver.model.records import Overlay
from tests.unit.cli.command import refusal


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> list[Preflight]:
    """A host without Docker that says what a test wants."""
    said = [Preflight(facts=Facts())]

    def version(_engine: Engine) -> str:
        raise Unavailable("Docker cannot be asked")

    def look(_program: _Program, _overlay: Overlay | None) -> Preflight:
        return said[0]

    monkeypatch.setattr(Engine, "version", version)
    monkeypatch.setattr(_Program, "preflight", look)
    return said


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == 0
    assert {"check": "kernel", "result": "ok", "what": ""} in found["checks"]
    assert {row["result"] for row in found["checks"]} >= {"ok", "note"}, "a note is no failure"


def test_a_failure_is_the_exit_status(
    host: list[Preflight], capsys: pytest.CaptureFixture[str]
) -> None:
    host[0] = Preflight(frozenset({BRIDGE}))
    assert main(["check"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("CHECK ")
    assert "the kernel has no bridge" in out
    assert err == "docker-flannel: 1 of these must be put right before the plugin works here\n"


def test_the_members_of_etcd_are_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def registry(_program: _Program, settings: EtcdSettings) -> None:
        asked.extend(map(str, settings.endpoints))
        raise Unavailable(f"{settings.endpoints[0]} refuses")

    monkeypatch.setattr(_Program, "registry", registry)
    members = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    assert main(["check", "--etcd-endpoints", ",".join(members)]) == 1
    assert asked == members, "each alone"
    out = capsys.readouterr().out
    assert all(f"failed    {member} refuses" in out for member in members)


def test_bad_settings_come_first(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files[1].write_text("DOCKER_FLANNEL_LEASE=zk\n")
    assert "--lease 'zk' is none of" in refusal(capsys, "check")


def test_who_may_not_try_the_kernel_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(_program: _Program, _overlay: Overlay | None) -> Preflight:
        raise HostError("the kernel refuses to be tried: use sudo")

    monkeypatch.setattr(_Program, "preflight", look)
    assert "use sudo" in refusal(capsys, "check")
