"""The pinned dependencies are those that setup.cfg asks for, and no others."""

from __future__ import annotations

import re
from configparser import ConfigParser
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
# name==1.2.3 ; marker, then hashes
PIN = re.compile(
    r"^([\w.-]+)==([^ ]+)(.*) \\$((?:\n    --hash=sha256:[0-9a-f]{64}.*)+)", re.MULTILINE
)


def pinned(name: str) -> dict[str, str]:
    """Return the version of each package in such a file that Linux takes."""
    text = (PROJECT / "packaging" / name).read_text()
    found = PIN.findall(text)
    assert len(found) == len(re.findall("^[a-z]", text, re.MULTILINE)), "each has hashes"
    return {canonicalize_name(p): version for p, version, where, _ in found if "win32" not in where}


def asked() -> list[Requirement]:
    config = ConfigParser()
    config.read(PROJECT / "setup.cfg")
    return [Requirement(line) for line in config["options"]["install_requires"].split("\n") if line]


def test_each_dependency_is_pinned_to_a_version_that_setup_cfg_allows() -> None:
    pins = pinned("requirements.txt")
    for requirement in asked():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_nothing_is_pinned_that_nothing_needs() -> None:
    pins, needed = pinned("requirements.txt"), set()
    waiting = asked()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in needed and (
            not requirement.marker or requirement.marker.evaluate({"extra": ""})
        ):
            needed.add(name)
            waiting += [Requirement(line) for line in requires(name) or ()]
    assert pins.keys() == needed


def test_the_builders_are_pinned() -> None:
    assert {"setuptools", "wheel"} <= pinned("build.txt").keys()
