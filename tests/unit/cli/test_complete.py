"""What completion proposes, and in which form Docker and shells read it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from driver.__main__ import main
from driver.api.status import document
from driver.cli import COMMANDS
from driver.docker.engine import Container, Engine, Names
from driver.model.records import short
from tests.unit.cli.command import Serve, http
from tests.unit.docker import port
from tests.unit.plugin import Setting

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def proposed(capsys: Capture, *words: str, request: str = "__completeNoDesc") -> list[str]:
    """Return the values and the directive, which is the last."""
    assert main([request, *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


@pytest.mark.parametrize("before", [[], ["flannel"], ["-D", "flannel"], ["x", "flannel"]])
def test_commands(before: list[str], capsys: Capture) -> None:
    """With Docker's bash completion, words of docker's options may come before `flannel`."""
    assert proposed(capsys, *before, "") == [*COMMANDS, ":4"]
    assert proposed(capsys, *before, "help", "") == [*COMMANDS, ":4"]
    assert proposed(capsys, *before, "por") == ["ports", ":4"]
    assert proposed(capsys, *before, "nonsense") == [":4"]
    assert proposed(capsys, *before, "nonsense", "") == [":4"]


def test_no_word_at_all(capsys: Capture) -> None:
    assert proposed(capsys) == [*COMMANDS, ":4"]


def test_descriptions_follow_a_tab(capsys: Capture) -> None:
    found = proposed(capsys, "flannel", "", request="__complete")
    assert "ports\tList the published ports, as this host has them." in found
    assert proposed(capsys, "ps", "--format", "", request="__complete") == ["table", "json", ":4"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ps --", "--help --socket --format :4"),
        ("ps --format json --", "--help --socket :4"),
        ("ps --format ", "table json :4"),
        ("ps --format j", "json :4"),
        ("ps --format=", "--format=table --format=json :4"),
        ("ps --format=j", "--format=json :4"),
        ("ps --nonsense=", ":4"),
        ("ps ", ":4"),
        ("backup ", ":0"),
        ("backup file ", ":4"),
        ("backup --state-dir ", ":0"),
        ("backup --state-dir there ", ":0"),
        ("backup --state-dir there file ", ":4"),
        ("setup-daemon --write ", ":4"),
        ("setup-daemon --write --", "--help --file :4"),
    ],
)
def test_options_and_their_values(line: str, found: str, capsys: Capture) -> None:
    """:0 has the shell propose files, :4 nothing."""
    assert proposed(capsys, *line.split(" ")) == found.split()
    assert proposed(capsys, "flannel", *line.split(" ")) == found.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_described(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = set(re.findall(r"^  (?:-\w[^,]*, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE))
    *found, _ = proposed(capsys, command, "--", request="__complete")
    assert {line.partition("\t")[0] for line in found} == shown
    assert all(line.partition("\t")[2] and "%(" not in line for line in found)


def known(monkeypatch: Patch, path: Path, names: Names) -> None:
    """Have the plugin on a socket, and Docker know some names."""
    monkeypatch.setenv("DOCKER_FLANNEL_SOCKET", str(path))
    monkeypatch.setattr(Engine, "names", lambda _: names)
    monkeypatch.setattr(Engine, "networks", lambda _: frozenset(names.networks))


def test_containers_with_ports(
    on: Setting, serve: Serve, capsys: Capture, monkeypatch: Patch
) -> None:
    net = on.docker.create_network()
    published, other = on.docker.start(net, port(80, 8080)), on.docker.start(net)
    on.docker.start(net, port(80, 8081))  # Docker does not list it
    names = {published.id: Container("c1", "web"), other.id: Container("c2", "worker")}
    path = serve(http(on.plugin.client.get("/ports").data))
    known(monkeypatch, path, Names({}, names))
    assert proposed(capsys, "ports", "w") == ["web", ":4"]


def test_networks_that_docker_does_not_list(
    on: Setting, serve: Serve, capsys: Capture, monkeypatch: Patch
) -> None:
    kept, gone = on.docker.create_network(), on.docker.create_network()
    path = serve(http(json.dumps(document(on.bench.core)).encode()))
    known(monkeypatch, path, Names({kept.id: "app"}))
    (line, _) = proposed(capsys, "forget", "", request="__complete")
    assert line.startswith(f"{short(gone.id)}\t10.2.0.")


def test_no_network_is_proposed_for_removal_if_docker_does_not_answer(
    on: Setting, serve: Serve, capsys: Capture, monkeypatch: Patch, tmp_path: Path
) -> None:
    on.docker.create_network()
    path = serve(http(json.dumps(document(on.bench.core)).encode()))
    monkeypatch.setenv("DOCKER_FLANNEL_SOCKET", str(path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent")
    assert proposed(capsys, "forget", "") == [":4"]


def test_without_the_plugin_nothing_is_proposed(
    capsys: Capture, monkeypatch: Patch, tmp_path: Path
) -> None:
    known(monkeypatch, tmp_path / "absent", Names())
    assert proposed(capsys, "ports", "") == [":4"]
    assert proposed(capsys, "forget", "") == [":4"]


def test_with_docker_elsewhere_nothing_is_proposed(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1")
    assert proposed(capsys, "ports", "") == [":4"]
