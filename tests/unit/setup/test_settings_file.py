"""The settings' files: read as systemd does, and edited with all else kept."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from driver.errors import BadRequest, HostError
from driver.setup import settings_file
from driver.setup.settings_file import assignments, edit, edited, read
from tests.unit.setup.settings_texts import READ_BY_SYSTEMD


def parsed(text: str) -> dict[str, str]:
    return {a.name: a.value for a in assignments(text)}


@pytest.mark.parametrize(("text", "values"), READ_BY_SYSTEMD)
def test_it_is_read_as_systemd_reads_it(text: str, values: dict[str, str]) -> None:
    assert parsed(text) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\0", "a byte 0"),
        ("A=\udcff\n", "'A' is not set in UTF-8"),
        ("A\udcff=1\n", "is not set in UTF-8"),
        ("# a \\\nA=1\n", "a comment ends in a backslash"),
    ],
)
def test_what_systemd_would_not_read_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_bytes(text.encode(errors="surrogateescape"))
    for refused in (lambda: read(path), lambda: edit(path, {"B": "1"})):
        with pytest.raises(BadRequest, match=words) as caught:
            refused()
        assert str(path) in str(caught.value)
    assert path.read_bytes() == text.encode(errors="surrogateescape")


BEFORE = """\
# our settings
A=1

  B = "two \\
words"  # and more
;C=3
A=2
nonsense
D=4
"""


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ({}, BEFORE),
        ({"A": "2"}, BEFORE.replace("A=1\n", "")),
        ({"A": "5"}, BEFORE.replace("A=1\n", "").replace("A=2", "A=5")),
        ({"A": None}, BEFORE.replace("A=1\n", "").replace("A=2\n", "")),
        ({"B": "x"}, BEFORE.replace('  B = "two \\\nwords"  # and more\n', "B=x\n")),
        ({"C": "3", "E": None, "F": ""}, BEFORE + "C=3\nF=\n"),
        ({"D": None, "E": "a b"}, BEFORE.replace("D=4\n", 'E="a b"\n')),
    ],
)
def test_an_edit_keeps_all_else(changes: dict[str, str | None], after: str) -> None:
    assert edited(BEFORE, changes) == after
    assert edited(after, changes) == after, "a second time changes nothing"


def test_an_edit_of_a_file_from_elsewhere_adds_no_empty_line() -> None:
    assert edited("A=1\r\nB=2\r\n", {"A": "3"}) == "A=3\nB=2\r\n"


@pytest.mark.parametrize(("text", "values"), READ_BY_SYSTEMD)
def test_every_text_can_be_edited_or_is_left(text: str, values: dict[str, str]) -> None:
    try:
        found = edited(text, {"NEW": "x", "A": "y"})
    except BadRequest as error:
        assert "without its end" in str(error)
        assert text.count("'") % 2 or text.count('"') % 2
        return
    assert parsed(found) == {**values, "NEW": "x", "A": "y"}


VALUES = [
    "",
    "plain-1./:,@%+=",
    "a b",
    " a ",
    "#a",
    ";",
    "'",
    '"',
    "a\\b",
    "\\",
    "$HOME",
    "`x`",
    "ü",
    "$(x)",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_also_in_a_shell(value: str, tmp_path: Path) -> None:
    path = tmp_path / "settings"
    assert edit(path, {"A": value})
    assert read(path) == {"A": value}
    script = f'. {path}; printf %s "$A"'
    assert (
        subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
        == value.encode()
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("A", "a\nb", r"A 'a\\nb' has characters that cannot be printed"),
        ("A", "a\0", "cannot be printed"),
        ("A", "a\udcff", "cannot be printed"),
        ("A B", "1", "'A B' is no name of a variable"),
        ("A=", "1", "is no name"),
        ("", None, "is no name"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(
    name: str, value: str | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "settings"
    path.write_text("B=1\n")
    with pytest.raises(BadRequest, match=words) as caught:
        edit(path, {"B": "2", name: value})
    assert str(caught.value).startswith(f"{path} is left as it is: ")
    assert path.read_text() == "B=1\n"


def test_a_new_file_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "etc/default/docker-flannel"
    assert read(path) == {}
    assert not edit(path, {"A": None})
    assert not path.exists()
    assert edit(path, {"A": "1"})
    assert stat.S_IMODE(path.stat().st_mode) == settings_file.NEW_MODE == 0o640


def test_mode_owner_and_link_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"# caf\xe9\nA=1")
    target.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(target, 12, 34)
    link.symlink_to(target)
    before = target.stat()
    assert edit(link, {"B": "2"})
    assert target.read_bytes() == b"# caf\xe9\nA=1\nB=2\n"
    after = target.stat()
    assert link.is_symlink()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert after.st_ino != before.st_ino, "it was replaced at once, not written in parts"
    assert not edit(link, {"B": "2"})
    assert target.stat().st_ino == after.st_ino, "what is set already is not written"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "target"]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings"
    path.write_text("A=1\n")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="settings cannot be changed: No space left on device"):
        edit(path, {"A": "2"})
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("settings", "A=1\n")]


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    fifo = tmp_path / "settings"
    os.mkfifo(fifo)
    with pytest.raises(HostError, match="settings cannot be read: it is not a regular file"):
        read(fifo)
    with pytest.raises(HostError, match="settings cannot be changed: it is not a regular file"):
        edit(fifo, {"A": "1"})
