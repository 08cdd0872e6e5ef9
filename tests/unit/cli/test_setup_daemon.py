"""daemon.json: what is merged into it, and how the file is replaced."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from driver.__main__ import main
from driver.cli import setup_daemon
from driver.cli.daemon_json import IPV4, LINES, OPTIONS, merge, show
from driver.errors import BadRequest, Conflict, FlannelError, HostError

OURS = {IPV4: "false"}
NEWER = "Docker version 28.5.2+dfsg4, build 3ef3c07"
DOCKERD = """\
#!/bin/sh
case $1 in
--version) echo "{version}" ;;
--validate) echo "$@" > "{log}"; cat "$3" >> "{log}"; {verdict} ;;
esac
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", LINES),
        (" \n", LINES),
        ("{}", LINES),
        ('{"debug": true}', {"debug": True, **LINES}),
        (f'{{"{OPTIONS}": {{}}, "mtu": 9}}', {**LINES, "mtu": 9}),
        (
            f'{{"{OPTIONS}": {{"bridge": {{"a": "b"}}, "flannel": {{"c": "d"}}}}}}',
            {OPTIONS: {"bridge": {"a": "b"}, "flannel": {"c": "d", **OURS}}},
        ),
    ],
)
def test_all_else_is_kept(before: str, after: dict[str, Any]) -> None:
    merged = merge(before)
    assert merged is not None
    assert json.loads(merged) == after
    assert list(json.loads(merged)) == list(after), "in its order"
    assert merged.endswith("}\n")
    assert merge(merged) is None, "once is enough"


def test_what_is_shown_is_what_is_merged() -> None:
    assert merge("") == show(LINES)


def test_names_stay_readable() -> None:
    assert '"büro"' in str(merge('{"labels": ["büro"]}'))


@pytest.mark.parametrize("text", ["[]", "7", "null", "{", "{'a': 1}", "no", "[" * 100000])
def test_no_json_object(text: str) -> None:
    with pytest.raises(BadRequest, match="it is no JSON"):
        merge(text)


def test_a_key_that_is_there_twice() -> None:
    with pytest.raises(BadRequest, match='"b" is there twice'):
        merge('{"a": 1, "b": 2, "b": 3}')


@pytest.mark.parametrize("value", ["true", False, 7, None])
def test_another_value(value: object) -> None:
    with pytest.raises(Conflict, match=f"has {IPV4} {json.dumps(value)} already"):
        merge(json.dumps({OPTIONS: {"flannel": {IPV4: value}}}))


@pytest.mark.parametrize("value", [[], "x", 7, None])
def test_another_shape(value: object) -> None:
    for settings, name in (({OPTIONS: value}, OPTIONS), ({OPTIONS: {"flannel": value}}, "flannel")):
        with pytest.raises(Conflict, match=f"{name} is .*, not a JSON object"):
            merge(json.dumps(settings))


# --- the file ---


@pytest.fixture
def dockerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a dockerd first in the search path that says its version and judges a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = folder / "log"

    def make(version: str = NEWER, verdict: str = "echo configuration OK") -> Path:
        program = folder / "dockerd"
        program.write_text(DOCKERD.format(version=version, verdict=verdict, log=log))
        program.chmod(0o755)
        return log

    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return make


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "daemon.json"
    path.parent.mkdir()
    path.write_text('{"debug": true}')
    return path


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def backups(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.*.bak"))


def refused(path: Path) -> FlannelError:
    """Try to write; nothing may be changed by that."""
    before, text = names(path), path.read_bytes()
    with pytest.raises(FlannelError) as caught:
        setup_daemon.write(path)
    assert (names(path), path.read_bytes()) == (before, text)
    return caught.value


def test_the_file_is_replaced_and_kept(file: Path, dockerd: Any) -> None:
    log = dockerd()
    file.chmod(0o640)
    os.chown(file, os.getuid(), os.getgid())
    said = setup_daemon.write(file)
    assert json.loads(file.read_text()) == {"debug": True, **LINES}
    found = file.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (
        0o640, os.getuid(), os.getgid(),
    )  # fmt: skip
    [backup] = backups(file)
    assert backup.read_text() == '{"debug": true}'
    assert names(file) == ["daemon.json", backup.name]
    assert str(backup) in said
    assert "systemctl restart docker" in said
    option, *checked = log.read_text().splitlines()
    assert option.startswith(f"--validate --config-file {file.parent}/.daemon.json.")
    assert json.loads("\n".join(checked)) == {"debug": True, **LINES}, "checked before it counts"


def test_a_second_time_nothing_is_changed(file: Path, dockerd: Any) -> None:
    dockerd()
    setup_daemon.write(file)
    before = (names(file), file.stat().st_ino, file.stat().st_mtime_ns)
    assert "nothing was changed" in setup_daemon.write(file)
    assert (names(file), file.stat().st_ino, file.stat().st_mtime_ns) == before


def test_a_file_that_is_not_there_yet(tmp_path: Path, dockerd: Any) -> None:
    dockerd()
    path = tmp_path / "new" / "daemon.json"
    said = setup_daemon.write(path)
    assert path.read_text() == show(LINES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path) == ["daemon.json"]
    assert "as it was" not in said


def test_where_a_link_leads_to_is_replaced(file: Path, tmp_path: Path, dockerd: Any) -> None:
    dockerd()
    link = tmp_path / "link.json"
    link.symlink_to(file)
    setup_daemon.write(link)
    assert link.is_symlink()
    assert json.loads(file.read_text()) == {"debug": True, **LINES}


def test_without_dockerd_the_file_is_not_checked(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no dockerd here to check" in setup_daemon.write(file)


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "27.5.1"])
def test_an_older_docker_would_not_start(file: Path, dockerd: Any, version: str) -> None:
    dockerd(f"Docker version {version}, build 5d6db84")
    error = refused(file)
    assert str(error).startswith(f"Docker {version} does not understand the setting, 28 and later")


def test_what_dockerd_refuses_is_not_written(file: Path, dockerd: Any) -> None:
    dockerd(verdict="echo 'unable to configure: debugg' >&2; exit 1")
    assert str(refused(file)) == (
        f"{file} is left as it is: dockerd would not start with it: unable to configure: debugg"
    )


@pytest.mark.parametrize(
    "text", [b"[]", b'{"a"', b"\xff\xfe{}", b'{"a": "\\ud800"}', b'{"default-network-opts": 7}']
)
def test_a_bad_file_is_left_alone(file: Path, dockerd: Any, text: bytes) -> None:
    dockerd()
    file.write_bytes(text)
    error = refused(file)
    assert isinstance(error, BadRequest | Conflict)
    assert str(error).startswith(f"{file} is left as it is: ")


def test_a_file_that_cannot_be_read(tmp_path: Path, dockerd: Any) -> None:
    dockerd()
    with pytest.raises(HostError, match=f"{tmp_path} cannot be changed: "):
        setup_daemon.write(tmp_path)


def test_a_dockerd_that_does_not_answer(
    file: Path, dockerd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dockerd(verdict="exec sleep 1000")
    monkeypatch.setattr(setup_daemon, "LIMIT_S", 0.5)
    assert "dockerd gave no answer" in str(refused(file))


# --- the command ---


@pytest.mark.parametrize("words", [["setup-daemon"], ["flannel", "setup-daemon"]])
def test_the_lines_are_alone_on_stdout(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == LINES
    assert "Docker 28 and later" in err
    assert "setup-daemon --write" in err


def test_writing_by_the_command(
    file: Path, dockerd: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    dockerd()
    assert main(["setup-daemon", "--write", "--file", str(file)]) == 0
    assert "has the setting now" in capsys.readouterr().out
    file.write_text("[]")
    assert main(["setup-daemon", "--write", "--file", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"docker-flannel: {file} is left as it is: it is no JSON object like {{}}; correct it "
        "first\n"
    )
