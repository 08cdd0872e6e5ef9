"""`docker flannel` as the docker command calls it: options, help, contexts, completion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driver import __version__
from tests.bed import Host, Result
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import COMMAND, container, docker_major, network

OWN_COMPLETION = PROJECT / "packaging/completion/docker-flannel.bash"
LIBRARY = Path("/usr/share/bash-completion/bash_completion")  # of this machine, for any Docker's
WITH_COMPLETION = 23  # the first Docker that has `docker completion`
TAB, ALL, HOME, END = "\t", "\x1b*", "\x01", "\x05"


def docker(host: Host, *words: str, **variables: str) -> Result:
    """Run docker with these variables and no others of the bed's but for its folder."""
    config = host.docker_env["DOCKER_CONFIG"]
    env = {"DOCKER_CONFIG": config, **variables}
    return host.run("docker", *words, env=env, check=False)


def test_docker_lists_the_plugin(cli: Host) -> None:
    block = network(cli, "app")
    shown = " ".join(cli.docker("flannel", "status").stdout.split())
    assert f" app {block} {block[1]} 1 of 62 " in shown
    assert "flannel*" in cli.docker("--help").stdout
    listed = json.loads(cli.docker("info", "--format", "{{json .ClientInfo.Plugins}}").stdout)
    (found,) = (plugin for plugin in listed if plugin["Name"] == "flannel")
    assert found["Version"] == __version__
    assert found["ShortDescription"] == "Flannel networks on this host"
    assert "Err" not in found


@pytest.mark.parametrize(
    "line",
    ["flannel", "flannel --help", "flannel help", "help flannel", "--help flannel",
     "-D flannel", "--context default help flannel", "--tls=false -l info flannel -h"],
)  # fmt: skip
def test_help(line: str, cli: Host) -> None:
    found = docker(cli, *line.split())
    assert found.ok, found.stderr
    assert found.stdout.startswith("usage: docker flannel COMMAND [OPTIONS]\n")
    assert "\n  status  " in found.stdout


@pytest.mark.parametrize(
    "line", ["flannel ports --help", "flannel help ports", "help flannel ports"]
)
def test_help_of_a_command(line: str, cli: Host) -> None:
    assert docker(cli, *line.split()).stdout.startswith("usage: docker flannel ports [-h]")


@pytest.mark.parametrize("line", ["flannel --version", "flannel version", "--version flannel"])
def test_version(line: str, cli: Host) -> None:
    assert docker(cli, *line.split()).stdout == f"{__version__}\n"


def test_a_wrong_command_line_ends_with_2_and_a_failure_with_1(cli: Host) -> None:
    wrong = docker(cli, "flannel", "bogus")
    assert wrong.code == 2
    assert "docker flannel: error: 'bogus' is no command; `docker flannel --help`" in wrong.stderr
    failed = docker(cli, "flannel", "forget", "bogus")
    assert failed.code == 1
    assert failed.stderr.startswith("docker flannel: 'bogus' is neither a block nor ")


def test_the_docker_that_is_asked_is_the_one_of_the_command(cli: Host) -> None:
    """Contexts are made by docker itself. Which Docker answers is seen by the names that it has."""
    network(cli, "app")
    container(cli, "web", "app")
    here, nowhere = "unix:///run/docker.sock", "unix:///run/nowhere.sock"
    for name, host in (("here", here), ("nowhere", nowhere), ("far", "tcp://192.0.2.1:2376")):
        assert docker(cli, "context", "create", name, "--docker", f"host={host}").ok

    def named(*options: str, **variables: str) -> bool:
        found = docker(cli, *options, "flannel", "ps", "--format", "json", **variables)
        (row,) = json.loads(found.stdout)
        assert (row["name"] == "web") == (row["network_name"] == "app")
        return bool(row["name"] == "web")

    try:
        assert named()
        assert named("--context", "here")
        assert not named("--context=nowhere")
        assert named("-H", here, DOCKER_HOST=nowhere)
        assert not named("-H", nowhere)
        assert not named(DOCKER_HOST=nowhere)
        assert not named(DOCKER_CONTEXT="nowhere")
        assert named(DOCKER_CONTEXT="nowhere", DOCKER_HOST=here)
        assert docker(cli, "context", "use", "nowhere").ok
        assert not named()
        assert named("--context", "default")
        assert named(DOCKER_HOST=here)
        for options, source in (
            (("--context", "far"), "Docker's context 'far'"),
            (("-H", "tcp://192.0.2.1:2376"), "--host"),
        ):
            refused = docker(cli, *options, "flannel", "status")
            assert refused.code == 1
            assert refused.stderr == (
                f"docker flannel: {source} leads to tcp://192.0.2.1:2376, which is no socket of "
                "this host; docker flannel is about the host it runs on: run it there\n"
            )
    finally:
        docker(cli, "context", "use", "default")
        docker(cli, "context", "rm", "here", "nowhere", "far")


# --- completion ---


def typed(host: Host, source: str, line: str) -> str:
    """Type a line into an interactive bash that has read a completion; return what it became.

    The keys after it have bash print the line instead of running it.
    """
    library = host.folder / "bash_completion"
    library.write_text(LIBRARY.read_text())
    folder = Path(host.docker_env["DOCKER_CONFIG"])
    keys = (
        f"export PATH={COMMAND.parent}:$PATH; . {library}; {source}\n"
        f"{line}{HOME}echo IT BECAME {END}\nexit\n"
    )
    env = {"DOCKER_CONFIG": str(folder), "TERM": "dumb"}
    shell = ("script", "-qec", "bash --norc --noprofile -i", "/dev/null")
    shown = host.run(*shell, input=keys, env=env).stdout.replace("\r", "\n")
    (found,) = (s.partition("BECAME ")[2] for s in shown.splitlines() if s.startswith("IT BECAME "))
    return found.strip()


def sources(host: Host) -> list[str]:
    """Return the commands that read Docker's completions: Debian's file, and docker's own."""
    found = [". /usr/share/bash-completion/completions/docker"]
    return found + [". <(docker completion bash)"] * (docker_major(host) >= WITH_COMPLETION)


def test_dockers_completion_asks_the_plugin(cli: Host) -> None:
    network(cli, "app")
    container(cli, "web-server", "app", "-p", "8080:80")
    container(cli, "worker", "app")
    for source in sources(cli):
        for line, became in (
            ("docker flannel stat" + TAB, "docker flannel status"),
            ("docker flannel re" + ALL, "docker flannel restore"),
            ("docker -D flannel por" + TAB, "docker -D flannel ports"),
            ("docker -c default flannel por" + TAB, "docker -c default flannel ports"),
            ("docker flannel ps --fo" + TAB, "docker flannel ps --format"),
            ("docker flannel ps --format " + ALL, "docker flannel ps --format json table"),
            ("docker flannel ports " + TAB, "docker flannel ports web-server"),
            ("docker flannel backup /etc/hostn" + TAB, "docker flannel backup /etc/hostname"),
        ):  # fmt: skip
            assert typed(cli, source, line) == became, source


def test_completion_of_the_program_itself(cli: Host) -> None:
    network(cli, "app")
    container(cli, "web-server", "app", "-p", "8080:80")
    for line, became in (
        ("docker-flannel stat" + TAB, "docker-flannel status"),
        ("docker-flannel help stat" + TAB, "docker-flannel help status"),
        ("docker-flannel ps --format=j" + TAB, "docker-flannel ps --format=json"),
        ("docker-flannel ports " + TAB, "docker-flannel ports web-server"),
        ("docker-flannel backup /etc/hostn" + TAB, "docker-flannel backup /etc/hostname"),
        ("docker-flannel status /etc/hostn" + TAB, "docker-flannel status /etc/hostn"),
    ):
        assert typed(cli, f". {OWN_COMPLETION}", line) == became
