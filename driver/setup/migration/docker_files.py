"""The files that set dockerd's --bip, and how they change. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driver.errors import Conflict

OPTION = re.compile(r"[ \t]*--bip(?:=|[ \t]+)[^\s\"']+")
VALUE = re.compile(r"(--bip(?:=|[ \t]+))[^\s\"']+")
DROP_INS = Path("/etc/systemd/system/docker.service.d")
ADMINISTRATORS = Path("/etc")  # files elsewhere are packages' or made anew at each boot
GENERATED = Path("/run")
OPTIONS = Path("/etc/docker/options-of-docker0.env")  # stands for a file that flanneld generates
SUBNET_FILE = "subnet.env"  # this plugin writes it, too
FLANNELD = re.compile(r"\bflannel(?:d|)\.service\b")
NEEDS = re.compile(r"(?:Requires|Requisite|Wants|BindsTo|PartOf|After|Upholds)=")
COMMENT = "# by docker-flannel migrate: "

Changes = dict[Path, str | None]  # new texts; None: the file goes


@dataclass(frozen=True, slots=True)
class DockerFiles:
    """Texts by path: daemon.json, docker.service with its drop-ins, its environment files."""

    daemon_json: Path
    daemon: str = ""
    units: Mapping[Path, str] = field(default_factory=dict)
    environment: Mapping[Path, str] = field(default_factory=dict)

    def sources(self) -> list[Path]:
        """List the files that set the prefix of docker0."""
        texts = {**self.units, **self.environment}
        found = [path for path, text in texts.items() if OPTION.search(text)]
        return found + [self.daemon_json] * ("bip" in settings(self.daemon))


def settings(text: str) -> dict[str, Any]:
    """Return what a daemon.json sets; nothing if it is no JSON object: dockerd refuses it then."""
    return _object(text) or {}


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text.strip() or "{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def check_daemon_json(files: DockerFiles) -> dict[str, Any]:
    """Return what daemon.json sets. Errors: Conflict where dockerd would not start with it."""
    found = _object(files.daemon)
    if found is None:
        raise Conflict(f"{files.daemon_json} is no JSON object any more: correct it first")
    return found


def with_bip(files: DockerFiles, bip: str) -> Changes:
    """Return the changes that set another prefix of docker0. Errors: Conflict."""
    changes = _in_texts(files, bip, lambda line: _led_to_ours(line, files))
    if "bip" in settings(files.daemon):
        changes |= _in_daemon_json(files, bip)
    for path, text in files.environment.items():
        if _is_generated(path) and OPTION.search(text):
            changes[OPTIONS] = VALUE.sub(rf"\g<1>{bip}", text)
    return changes


def apart(files: DockerFiles, bip: str) -> Changes:
    """Return the changes that set a prefix of docker0 which has nothing to do with flanneld.

    It has to be set: without it, Docker keeps the one it had. Errors: Conflict.
    """
    changes = _in_texts(files, bip, lambda line: _cut(line, files))
    if not any(new and OPTION.search(new) for new in changes.values()):
        changes |= _in_daemon_json(files, bip)
    if OPTIONS in files.environment:
        changes[OPTIONS] = None
    return changes


def without_flanneld(files: DockerFiles) -> Changes:
    """Return the changes that make docker.service independent of flanneld. Errors: Conflict."""
    changes: Changes = {}
    for path, text in files.units.items():
        changes |= _new(path, text, _lines(text, lambda line: _cut(line, files)))
    return changes


def _in_texts(files: DockerFiles, bip: str, change: Callable[[str], str]) -> Changes:
    """Return the changes of the option in administrators' files, and of the units' lines."""
    changes: Changes = {}
    for path, text in files.units.items():
        changes |= _new(path, text, _lines(VALUE.sub(rf"\g<1>{bip}", text), change))
    for path, text in files.environment.items():
        if not _is_generated(path) and path != OPTIONS:
            changes |= _new(path, text, VALUE.sub(rf"\g<1>{bip}", text))
    return changes


def _lines(text: str, change: Callable[[str], str]) -> str:
    return "".join(map(change, text.splitlines(keepends=True)))


def _new(path: Path, old: str, new: str) -> Changes:
    return {_writable(path): new} if new != old else {}


def _is_generated(path: Path) -> bool:
    return path.is_relative_to(GENERATED)


def _in_daemon_json(files: DockerFiles, bip: str) -> Changes:
    found = check_daemon_json(files)
    return {
        files.daemon_json: json.dumps({**found, "bip": bip}, indent=2, ensure_ascii=False) + "\n"
    }


def _file_of(line: str) -> Path | None:
    """Return the file that a line EnvironmentFile= names."""
    name, equals, value = line.partition("=")
    if not equals or name.strip() != "EnvironmentFile":
        return None
    return Path(value.strip().removeprefix("-"))


def _led_to_ours(line: str, files: DockerFiles) -> str:
    path = _file_of(line)
    if path and _is_generated(path) and OPTION.search(files.environment.get(path, "")):
        return f"EnvironmentFile={OPTIONS}\n"
    return line


def _cut(line: str, files: DockerFiles) -> str:
    """Comment out what a line takes from flanneld: its generated options, or its unit."""
    path = _file_of(line)
    if path is not None:
        generated = _is_generated(path) and path.name != SUBNET_FILE
        options = OPTION.search(files.environment.get(path, ""))
        flannels = "flannel" in path.parts or options
        return COMMENT + line if path == OPTIONS or (generated and flannels) else line
    if NEEDS.match(line.strip()) and FLANNELD.search(line):
        name, _, units = line.strip().partition("=")
        left = [unit for unit in units.split() if not FLANNELD.fullmatch(unit)]
        return f"{name}={' '.join(left)}\n" if left else COMMENT + line
    return line


def _writable(path: Path) -> Path:
    """Return where to write a file's new text: a package's drop-in gets one that hides it."""
    if path.is_relative_to(ADMINISTRATORS):
        return path
    if path.parent.name == DROP_INS.name:
        return DROP_INS / path.name
    raise Conflict(
        f"{path} sets --bip or names flanneld, but a package or a generator owns that file: "
        f"put a copy below {ADMINISTRATORS} in its place, and run this again"
    )


def shown(changes: Changes, old: Mapping[Path, str]) -> Iterator[str]:
    """Yield the lines that go and come in each file."""
    for path, new in changes.items():
        before, after = old.get(path, "").splitlines(), (new or "").splitlines()
        yield f"remove {path}" if new is None else f"change {path}"
        yield from (f"  - {line}" for line in before if line not in after)
        yield from (f"  + {line}" for line in after if line not in before)
