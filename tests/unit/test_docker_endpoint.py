"""Which Docker is asked: by option, variable or context."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from driver.docker.endpoint import find
from driver.docker.engine import SOCKET
from driver.errors import BadRequest

LOCAL = {"one": "unix:///run/one.sock", "two": "unix:///run/two.sock"}


def context(folder: Path, name: str, host: str) -> None:
    file = folder / "contexts/meta" / sha256(name.encode()).hexdigest() / "meta.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home whose current context is `one`."""
    folder = tmp_path / ".docker"
    for name, host in LOCAL.items():
        context(folder, name, host)
    (folder / "config.json").write_text('{"currentContext": "one"}')
    return tmp_path


@pytest.mark.parametrize(
    ("options", "variables", "socket"),
    [
        ({}, {}, "/run/one.sock"),
        ({}, {"DOCKER_CONTEXT": "two"}, "/run/two.sock"),
        ({}, {"DOCKER_CONTEXT": "default"}, str(SOCKET)),
        ({}, {"DOCKER_CONTEXT": "two", "DOCKER_HOST": "unix:///run/h.sock"}, "/run/h.sock"),
        ({"--context": "one"}, {"DOCKER_HOST": "unix:///run/h.sock"}, "/run/one.sock"),
        ({"--context": "default"}, {"DOCKER_HOST": "unix:///run/h.sock"}, "/run/h.sock"),
        ({"--context": "two"}, {"DOCKER_CONTEXT": "one"}, "/run/two.sock"),
        ({"--host": "unix:///run/o.sock"}, {"DOCKER_HOST": "tcp://h:1"}, "/run/o.sock"),
        ({"--host": "unix://"}, {"DOCKER_CONTEXT": "none"}, str(SOCKET)),
        ({}, {"DOCKER_HOST": ""}, "/run/one.sock"),
    ],
)
def test_who_is_asked(
    options: dict[str, str], variables: dict[str, str], socket: str, home: Path
) -> None:
    assert find(options, {"HOME": str(home), **variables}) == Path(socket)


def test_another_folder_of_settings(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    context(other, "there", "unix:///run/there.sock")
    (other / "config.json").write_text('{"currentContext": "there"}')
    there = Path("/run/there.sock")
    assert find({"--config": str(other)}, {"HOME": str(home)}) == there
    assert find({}, {"HOME": str(home), "DOCKER_CONFIG": str(other)}) == there


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"currentContext": ""}', "{}"])
def test_no_current_context(text: str | None, tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    if text is not None:
        (tmp_path / ".docker/config.json").write_text(text)
    assert find({}, {"HOME": str(tmp_path)}) == SOCKET


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("tcp://192.0.2.1:2376", "tcp://192.0.2.1:2376"),
        ("ssh://user:secret@far", "ssh://far"),
        ("npipe:////./pipe/docker_engine", "npipe:"),
        ("far", "far"),
        ("", "leads to "),
    ],
)
def test_a_docker_elsewhere_is_refused(host: str, shown: str, home: Path) -> None:
    context(home / ".docker", "far", host)
    variables = {"HOME": str(home)}
    asked = [find_fails({"--context": "far"}, variables)]
    if host:
        asked += [find_fails({"--host": host}, variables)]
        asked += [find_fails({}, {**variables, "DOCKER_HOST": host})]
        assert [text.split(" leads")[0] for text in asked[1:]] == ["--host", "DOCKER_HOST"]
    for text in asked:
        assert shown in text
        assert text.endswith("run it there")
        assert "secret" not in text
    assert asked[0].startswith("Docker's context 'far'")


def find_fails(options: dict[str, str], variables: dict[str, str]) -> str:
    with pytest.raises(BadRequest) as caught:
        find(options, variables)
    return str(caught.value)


def test_a_context_that_is_not_there(home: Path) -> None:
    text = find_fails({"--context": "../none"}, {"HOME": str(home)})
    assert text == "Docker's context '../none' does not exist; `docker context ls` lists them"


def test_a_context_that_cannot_be_read(home: Path) -> None:
    for file in (home / ".docker").glob("contexts/meta/*/meta.json"):
        file.write_text('{"Endpoints": {}}')
    assert "'one' cannot be read from" in find_fails({}, {"HOME": str(home)})


def test_two_at_once(home: Path) -> None:
    words: dict[str, str] = {"--context": "one", "--host": "unix://"}
    assert "use only one of them" in find_fails(words, {"HOME": str(home)})
