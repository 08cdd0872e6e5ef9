"""`docker-flannel config`: the running service's settings, or those of the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driver.__main__ import main
from driver.config import SETTINGS
from driver.handlers import create_app
from driver.setup.in_force import document
from driver.setup.sources import Sources
from tests.unit.bench import make_core
from tests.unit.cli.command import Serve, http, refusal


def test_the_running_service_is_the_truth(
    serve: Serve, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    core, path = make_core().core, serve
    sources = Sources.read({}, {"FLANNELD_IFACE": "eth7"})
    answers = {"running": True, **{k: v for k, v in document(sources).items() if k != "running"}}
    for setting in answers["settings"]:
        setting["in_effect"] = True
    app = create_app(core, settings=lambda state: {**answers, "in_use": bool(state.pools)})
    reply = app.test_client().get("/settings")
    assert reply.json == {**answers, "in_use": bool(core.state.pools)}
    files[1].write_text("FLANNELD_IFACE=eth0\n")
    assert main(["config", "--socket", str(path(http(reply.data)))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "FROM", "IN", "EFFECT"]
    assert ["FLANNELD_IFACE", "eth7", "environment", "yes"] in [line.split() for line in lines]
    assert len(lines) == 1 + len(SETTINGS)


def test_what_waits_and_what_is_wrong_is_shown(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(Sources.read({}, {}))
    found |= {"running": True, "problems": ["odd"]}
    found["settings"][0]["note"] = "from the next restart: etcd (/x)"
    path = serve(http(json.dumps(found).encode()))
    assert main(["config", "--socket", str(path)]) == 0
    out = capsys.readouterr().out
    assert "from the next restart: etcd (/x)\n" in out
    assert "`systemctl restart docker-flannel`" in out
    assert out.endswith("PROBLEM\nodd\n")


def test_without_a_service_the_files_are_shown(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files[1].write_text("FLANNELD_IFACE=eth0\n")
    words = ["config", "--socket", str(tmp_path / "none"), "--format"]
    assert main([*words, "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shown = {s["variable"]: (s["value"], s["from"]) for s in found["settings"]}
    assert shown["FLANNELD_IFACE"] == ("eth0", str(files[1]))
    assert "does not answer on" in found["problems"][0]
    assert main([*words, "table"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "no service says what is in force; a new one would have these settings:\n"
    )
    assert "IN EFFECT" not in out


def test_an_older_service_does_not_say(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    path = serve(http(b'{"Err": "GET /settings: Not Found"}', "404 NOT FOUND"))
    assert main(["config", "--socket", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("no service says what is in force; ")
    assert f"what answers on {path} does not know /settings: `systemctl restart" in out


def test_half_of_the_settings_are_not_shown(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files[0].mkdir()
    message = refusal(capsys, "config", "--socket", str(tmp_path / "none"))
    assert f"{files[0]} cannot be read" in message
