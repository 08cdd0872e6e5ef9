"""The command line, and its end of the socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from driver import __version__
from driver.__main__ import main
from driver.api.status import document
from driver.cli import COMMANDS
from driver.cli import serve as serve_command
from driver.config import SETTINGS
from driver.docker.unix_http import UnixConnection
from tests.unit.bench import make_core
from tests.unit.cli.command import Serve, http, refusal


def test_docker_is_told_what_this_plugin_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docker-cli-plugin-metadata"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["SchemaVersion"] == "0.1.0"
    assert found["Version"] == __version__
    assert set(found) == {"SchemaVersion", "Vendor", "Version", "ShortDescription"}


END_WELL = [[], ["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)]


@pytest.mark.parametrize(
    "words", [*END_WELL, *(["-D", "flannel", *words] for words in END_WELL if "serve" not in words)]
)
def test_help_and_version_end_well(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("words", "program"),
    [(["help", "flannel"], "docker flannel"), (["--help"], "docker-flannel")],
)
def test_help_has_every_command_and_the_way_it_was_called(
    words: list[str], program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {program} COMMAND [OPTIONS]\n")
    listed = {line.split()[0] for line in shown.splitlines() if line[:3].startswith("  ")}
    assert set(COMMANDS) - listed == ({"serve"} if program == "docker flannel" else set())
    assert f"`{program} COMMAND --help`" in shown
    with pytest.raises(SystemExit):
        main([*words, "status"] if program == "docker flannel" else ["help", "status"])
    assert capsys.readouterr().out.startswith(f"usage: {program} status [-h]")


def test_help_names_every_setting_with_variable_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    assert [s.variable for s in SETTINGS if s.secret] == ["FLANNELD_ETCD_PASSWORD"]
    for setting in SETTINGS:
        assert (setting.option in shown) != setting.secret, "everybody sees a command line"
        if setting.secret:
            continue
        assert f"(default {setting.default}; {setting.variable})" in shown


WRONG = [["nonsense"], ["help", "nonsense"], ["-x"], ["status", "--format", "xml"], ["ps", "x"]]


@pytest.mark.parametrize("words", WRONG)
@pytest.mark.parametrize("program", ["docker-flannel", "docker flannel"])
def test_wrong_usage(words: list[str], program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*program.split()[1:], *words])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: {program} ")
    if "nonsense" in words:
        assert f"error: 'nonsense' is no command; `{program} --help` lists them" in said


def test_docker_does_not_serve(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_command, "run", lambda *_: pytest.fail("it serves"))
    with pytest.raises(SystemExit) as caught:
        main(["flannel", "serve"])
    assert caught.value.code == 2
    assert "error: serve is for the service: `systemctl start" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "backup file", "setup-daemon"])
def test_a_docker_elsewhere_is_not_this_host(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--host", "ssh://far", "flannel", *command.split()]
    assert "--host leads to ssh://far, which" in refusal(capsys, *words)
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1")
    assert "DOCKER_HOST leads to tcp://192.0.2.1, " in refusal(capsys, "flannel", *command.split())


def test_who_calls_the_program_itself_means_this_host(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1")
    assert main(["setup-daemon"]) == 0
    capsys.readouterr()
    said = refusal(capsys, "adopt", "--socket", str(tmp_path))
    assert "DOCKER_HOST leads to" in said, "Docker has to be asked"


def test_status_needs_no_names(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1")
    path = serve(http(json.dumps(document(make_core().core)).encode()))
    assert main(["status", "--socket", str(path)]) == 0
    assert "networks   0" in capsys.readouterr().out


def test_only_root_may_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(UnixConnection, "connect", refused)
    said = refusal(capsys, "status")
    assert said.endswith(
        "only root may ask docker-flannel on /run/docker/plugins/flannel.sock: use sudo\n"
    )


def test_a_state_that_cannot_be_copied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refusal(capsys, "backup", "--state-dir", str(tmp_path), str(tmp_path / "copy"))
    assert "No such file or directory" in said
    assert not list(tmp_path.iterdir())


def test_an_interrupted_command_ends_as_a_shell_expects(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(UnixConnection, "connect", interrupted)
    assert main(["status"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bad_setting_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_FLANNEL_NETWORK", "here")
    assert "--network 'here' is no IPv4 prefix" in refusal(capsys, "init")


@pytest.mark.parametrize("words", [["status"], ["flannel", "status"], ["docker-opts"]])
@pytest.mark.parametrize(
    ("user", "cure"), [(0, "start it with `systemctl start docker-flannel`"), (1000, "with sudo")]
)
def test_no_service(
    words: list[str],
    user: int,
    cure: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "sock"
    monkeypatch.setattr(os, "geteuid", lambda: user)
    message = refusal(capsys, *words, "--socket", str(path))
    assert f"docker-flannel does not answer on {path} (" in message
    assert cure in message


def test_the_settings_are_those_of_the_files(
    serve: Serve, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = serve(http(json.dumps(document(make_core().core)).encode()))
    files[0].write_text("DOCKER_FLANNEL_SOCKET=/nowhere\nDOCKER_FLANNEL_NETWORK=here\n")
    files[1].write_text(f"DOCKER_FLANNEL_SOCKET='{path}'\n")
    assert main(["status"]) == 0, "and a bad setting does not matter to those who ask the plugin"
    capsys.readouterr()
    assert "--network 'here' is no IPv4 prefix" in refusal(capsys, "init")


def test_who_cannot_read_the_files_can_still_ask(
    serve: Serve, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = serve(http(json.dumps(document(make_core().core)).encode()))
    files[1].mkdir()
    assert main(["status", "--socket", str(path)]) == 0
    capsys.readouterr()
    assert f"{files[1]} cannot be read: it is not a regular file" in refusal(capsys, "init")


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", http(b"no json"), http(b"")])
def test_something_else_answers(
    reply: bytes, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not answer on" in refusal(capsys, "status", "--socket", str(serve(reply)))


@pytest.mark.parametrize("body", [b"{}", b"[]", b"7"])
def test_another_service_refuses(
    body: bytes, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    path = serve(http(body, "404 Not Found"))
    refusal(capsys, "status", "--socket", str(path))


def test_a_refusal_is_handed_on(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    path = serve(http(b'{"Err": "the state is gone"}', "500 Oh"))
    assert refusal(capsys, "status", "--socket", str(path)) == "docker-flannel: the state is gone\n"


@pytest.mark.parametrize("form", ["table", "json"])
def test_status_is_shown(form: str, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(make_core().core)
    path = serve(http(json.dumps(found).encode()))
    assert main(["status", "--format", form, "--socket", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n")
    if form == "json":
        assert json.loads(out) == found
    else:
        assert out.startswith("lease      10.2.0.0/24")


def test_docker_opts_are_shown(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    path = serve(http(json.dumps(document(make_core().core)).encode()))
    assert main(["docker-opts", "--socket", str(path)]) == 0
    assert '"base": "10.2.0.0/24"' in capsys.readouterr().out


STRANGE = "no br\u00fc\x1b[31m\nline"


def test_a_terminal_obeys_nothing_that_is_shown(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(make_core().core, [STRANGE])
    path = serve(http(json.dumps({**found, "note": STRANGE}).encode()))
    assert main(["status", "--socket", str(path)]) == 0
    assert capsys.readouterr().out.count("no br\u00fc\\x1b[31m\\nline\n") == 2


def test_a_terminal_obeys_nothing_that_is_refused(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    path = serve(http(json.dumps({"Err": STRANGE}).encode(), "500 Oh"))
    said = refusal(capsys, "status", "--socket", str(path))
    assert said == "docker-flannel: no br\u00fc\\x1b[31m\\nline\n"


def printed(path: Path, output: int, *words: str, **variables: str) -> tuple[int, str]:
    """Run the command as a process; return its exit status and what it says of errors."""
    done = subprocess.run(
        [sys.executable, "-m", "driver", "status", "--socket", str(path), *words],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    return done.returncode, done.stderr


def test_what_the_locale_cannot_write_is_escaped(serve: Serve, tmp_path: Path) -> None:
    path = serve(http(json.dumps(document(make_core().core, [STRANGE])).encode()))
    with (tmp_path / "out").open("w") as out:
        assert printed(path, out.fileno(), PYTHONIOENCODING="ascii") == (0, "")
    assert "no br\\xfc\\x1b" in (tmp_path / "out").read_text()


@pytest.mark.parametrize("form", ["table", "json"])
def test_who_stops_reading_gets_no_traceback(form: str, serve: Serve) -> None:
    path = serve(http(json.dumps(document(make_core().core)).encode()))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert printed(path, writer, "--format", form) == (1, "")
    finally:
        os.close(writer)
