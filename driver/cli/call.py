"""What the program was called with: by a user, or by Docker, whose CLI plugin it is.

Docker passes its whole command line: `docker -D flannel status` runs `docker-flannel -D flannel
status`, and `docker help flannel status` runs `docker-flannel help flannel status`.
Source: docker/cli, cli-plugins/manager; 20.10 to 28.5 do the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from getopt import GetoptError, getopt

from driver import __version__

METADATA = {
    "SchemaVersion": "0.1.0",
    "Vendor": "docker-flannel",
    "Version": __version__,
    "ShortDescription": "Flannel networks on this host",
}
PLUGIN = "flannel"  # Docker's word for it
# docker's global options
SHORT = {"-c": "--context", "-H": "--host", "-h": "--help", "-v": "--version"}
LONG = ("context=", "host=", "config=", "log-level=", "tlscacert=", "tlscert=", "tlskey=",
        "debug", "tls", "tlsverify", "help", "version")  # fmt: skip
WITH_TRUTH = re.compile(r"(-D|--debug|--tls|--tlsverify)=\w+")  # such as --tls=false


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the program.

    `program` is what the user typed before `words`. `options` are docker's global ones by their
    long names; None if it is not Docker that calls.
    """

    program: str
    words: Sequence[str]
    options: Mapping[str, str] | None = None


def read(words: Sequence[str]) -> Call:
    """Return the call with these words, `help` and `version` as options: the parser takes those."""
    found, rest = _global_options(words)
    helps = rest[:1] == ["help"]
    if rest[helps : helps + 1] != [PLUGIN]:
        return Call("docker-flannel", _normal(words))
    mine = rest[helps + 1 :]
    if helps or "--help" in found:
        mine = ["help", *mine]
    elif "--version" in found:
        mine = ["version"]
    return Call("docker flannel", _normal(mine), found)


def _global_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return docker's options at the beginning and the words after them; none for other options."""
    try:
        found, rest = getopt([WITH_TRUTH.sub(r"\1", word) for word in words], "c:H:l:Dhv", LONG)
    except GetoptError:
        return {}, []
    return {SHORT.get(o, o): value for o, value in found}, list(words[len(words) - len(rest) :])


def _normal(words: Sequence[str]) -> list[str]:
    if not words or words[0] == "help":
        return [*words[1:], "--help"]
    return ["--version"] if list(words) == ["version"] else list(words)
