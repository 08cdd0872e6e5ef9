"""Reads and edits files of settings as systemd reads an `EnvironmentFile=`.

A shell reads them almost alike. But here `a#b` and `a'b'` stand for themselves, blanks around a
value are left out, and nothing is expanded. No library has these rules.
Source: systemd.exec(5); the states in systemd's env-file.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from driver.errors import BadRequest, HostError
from driver.files import read_file, write_file

FLANNELD = Path("/etc/default/flanneld")
OURS = Path("/etc/default/docker-flannel")
IN_ORDER = (FLANNELD, OURS)  # as in the unit: what the last one sets is in force
NEW_MODE = 0o640  # it may hold a password

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLAIN = re.compile(r"[A-Za-z0-9_./:,@%+=-]*")  # needs no quotes, neither here nor in a shell
SKIPPED = re.compile(r"[ \t\n\r]+|[#;][^\n\r]*")
KEY = re.compile(r"([^\n\r=]*)(=?)")
QUOTED = re.compile(r"""[ \t]*(?:'([^']*)(?:'|\Z)|"((?:[^"\\]|\\[\s\S])*)(?:"|\\?\Z))""")
BARE = re.compile(r"[ \t]*((?:[^\\\n\r]|\\[\s\S])*)(?:\r?\n|\r)?")
CONTINUED = re.compile(r"[#;][^\n\r]*\\\n[ \t]*[^#;\s]")  # a comment, and then no comment
ESCAPE = re.compile(r"\\([\s\S])")
LETTER = re.compile(r"\\[\s\S]|.")


@dataclass(frozen=True, slots=True)
class Assignment:
    """A variable that a text sets, and the part of the text that does so, to its line's end."""

    name: str
    value: str
    start: int
    end: int


def read(path: Path) -> dict[str, str]:
    """Return what a file sets; nothing if there is no file.

    Errors: BadRequest if systemd would not read it, PermissionError, HostError.
    """
    try:
        return {a.name: a.value for a in assignments(_text(path))}
    except PermissionError:
        raise
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror or error}") from error
    except BadRequest as error:
        raise BadRequest(f"{path}: {error}") from None


def edit(path: Path, changes: Mapping[str, str | None]) -> bool:
    """Set variables, and remove those whose value is None; return whether the file has changed.

    All other lines stay. So do mode and owner of the file; a new one has `NEW_MODE`.
    Errors: BadRequest if the file cannot hold that, HostError; the file is as it was then.
    """
    try:
        old = _text(path)
        new = edited(old, changes)
        if new != old:
            write_file(path, new.encode(errors="surrogateescape"), NEW_MODE)
    except BadRequest as error:
        raise BadRequest(f"{path} is left as it is: {error}") from None
    except OSError as error:
        raise HostError(f"{path} cannot be changed: {error.strerror or error}") from error
    return new != old


def edited(text: str, changes: Mapping[str, str | None]) -> str:
    """Return a text with these changes. A variable that it sets already keeps its place.

    Errors: BadRequest.
    """
    for name, value in changes.items():
        _check(name, value or "")
    found = list(assignments(text))
    in_force = {a.name: a for a in found}  # the last of each
    parts, end = [], 0
    for a in found:
        if a.name not in changes:
            continue
        value = changes[a.name]
        line = text[a.start : a.end] if value == a.value else _line(a.name, value)
        parts += [text[end : a.start], line if in_force[a.name] is a else ""]
        end = a.end
    kept = "".join([*parts, text[end:]])
    added = "".join(_line(n, value) for n, value in changes.items() if n not in in_force)
    if added and kept and not kept.endswith("\n"):
        kept += "\n"
    if added and kept.endswith("\\\n"):  # else the next line might be a part of this one
        kept += "\n"
    before = {name: a.value for name, a in in_force.items()}
    after = {n: value for n, value in {**before, **changes}.items() if value is not None}
    if {a.name: a.value for a in assignments(kept + added)} != after:
        raise BadRequest("its last value has a quote without its end; correct that first")
    return kept + added


def assignments(text: str) -> Iterator[Assignment]:
    """Find what a text sets, from its beginning to its end. Errors: BadRequest."""
    if "\0" in text:
        raise BadRequest("it has a byte 0, so systemd does not read it")
    at = 0
    while at < len(text):
        if CONTINUED.match(text, at):
            raise BadRequest(
                "a comment ends in a backslash: up to version 253, systemd takes the next line for "
                "a part of it; remove the backslash"
            )
        if skipped := SKIPPED.match(text, at):
            at = skipped.end()
            continue
        start = max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1
        key = KEY.match(text, at)
        assert key is not None  # noqa: S101 - it matches any text
        at = key.end()
        if not key[2]:
            continue
        value, at = _value(text, at)
        name = key[1].rstrip(" \t")
        if not _is_text(name + value):
            raise BadRequest(f"{name!a} is not set in UTF-8, so systemd does not read the file")
        if NAME.fullmatch(name):
            yield Assignment(name, value, start, at)


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the value that begins here, and where its line ends."""
    value = ""
    while quoted := QUOTED.match(text, at):
        value += quoted[1] or ESCAPE.sub(_unescaped, quoted[2] or "")
        at = quoted.end()
    bare = BARE.match(text, at)
    assert bare is not None  # noqa: S101 - it matches any text
    letters = LETTER.findall(bare[1])
    while letters and letters[-1] in (" ", "\t"):
        letters.pop()
    # a backslash at the end of a line continues it, any other stands before a letter
    value += "".join("" if c in ("\\\n", "\\\r") else c[-1] for c in letters)
    return value, bare.end()


def _unescaped(found: re.Match[str]) -> str:
    """Return what an escape within double quotes stands for."""
    letter = found[1]
    if letter == "\n":
        return ""
    return letter if letter in '"\\`$' else found[0]


def _line(name: str, value: str | None) -> str:
    """Return a line that systemd and shells read alike; "" for None."""
    if value is None:
        return ""
    if not PLAIN.fullmatch(value):
        value = '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'
    return f"{name}={value}\n"


def _check(name: str, value: str) -> None:
    if not NAME.fullmatch(name):
        raise BadRequest(f"{name!a} is no name of a variable: letters, digits and _")
    if not (_is_text(value) and value.isprintable()):
        raise BadRequest(f"{name} {value!a} has characters that cannot be printed")


def _is_text(text: str) -> bool:
    """Whether a text was valid UTF-8 where it was read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(path: Path) -> str:
    """Return a file's text, "" if there is none. Errors: OSError."""
    try:
        return read_file(path).decode(errors="surrogateescape")
    except FileNotFoundError:
        return ""
