"""How Docker calls the program, and how a user does."""

from __future__ import annotations

import pytest

from driver.cli.call import read

DOCKER, OWN = "docker flannel", "docker-flannel"


@pytest.mark.parametrize(
    ("line", "words", "options"),
    [
        ("flannel status --format json", "status --format json", {}),
        ("flannel", "--help", {}),
        ("flannel --help", "--help", {}),
        ("flannel help", "--help", {}),
        ("flannel help status", "status --help", {}),
        ("flannel version", "--version", {}),
        ("flannel --version", "--version", {}),
        ("help flannel", "--help", {}),
        ("help flannel status", "status --help", {}),
        ("--help flannel", "--help", {"--help": ""}),
        ("-h flannel ps", "ps --help", {"--help": ""}),
        ("--version flannel", "--version", {"--version": ""}),
        ("-v flannel ps", "--version", {"--version": ""}),
        ("--context c flannel ps", "ps", {"--context": "c"}),
        ("--context=c help flannel ps", "ps --help", {"--context": "c"}),
        ("-c flannel flannel ps", "ps", {"--context": "flannel"}),
        ("-cx -H unix:///x flannel ps", "ps", {"--context": "x", "--host": "unix:///x"}),
        ("-Dl debug flannel ps", "ps", {"-D": "", "-l": "debug"}),
        ("--config /c --tlscacert /x flannel ps", "ps", {"--config": "/c", "--tlscacert": "/x"}),
        ("--debug=true --tls=false flannel x --tls=0", "x --tls=0", {"--debug": "", "--tls": ""}),
        ("flannel ports flannel", "ports flannel", {}),
        ("flannel flannel", "flannel", {}),
    ],
)  # fmt: skip
def test_docker_calls(line: str, words: str, options: dict[str, str]) -> None:
    call = read(line.split())
    assert (call.program, " ".join(call.words), call.options) == (DOCKER, words, options)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "--help"),
        ("help", "--help"),
        ("help status", "status --help"),
        ("version", "--version"),
        ("--help", "--help"),
        ("--version", "--version"),
        ("status", "status"),
        ("ports flannel", "ports flannel"),
        ("ports --format json flannel", "ports --format json flannel"),
        ("help ports flannel", "ports flannel --help"),
        ("--socket /x flannel", "--socket /x flannel"),
        ("--context", "--context"),
    ],
)
def test_a_user_calls(line: str, words: str) -> None:
    call = read(line.split())
    assert (call.program, " ".join(call.words), call.options) == (OWN, words, None)
