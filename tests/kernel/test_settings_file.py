"""The settings' files as systemd itself reads them.

Its generator for users' environments shares that reader, but for variables in values.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.setup.settings_texts import READ_BY_SYSTEMD

GENERATOR = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
SHOWN = {"\\n": "\n", "\\t": "\t"}


def read_by_systemd(text: str, folder: Path) -> dict[str, str]:
    path = folder / "environment.d/settings.conf"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode(errors="surrogateescape"))
    variables = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    shown = subprocess.run([GENERATOR], env=variables, capture_output=True, check=True).stdout
    lines = [line.partition("=") for line in shown.decode().splitlines()]
    return {name: _value(value) for name, _, value in lines}


def _value(shown: str) -> str:
    """Return a value from what the generator prints, quoted for a shell if need be."""
    if not shown.startswith(('"', "$'")):
        return shown
    inside = shown.removeprefix("$")[1:-1]
    return re.sub(r"\\.", lambda found: SHOWN.get(found[0], found[0][1]), inside)


@pytest.mark.parametrize(("text", "values"), READ_BY_SYSTEMD)
def test_the_table_says_what_systemd_reads(
    text: str, values: dict[str, str], tmp_path: Path
) -> None:
    of_the_machine = read_by_systemd("", tmp_path / "empty")
    found = read_by_systemd(text, tmp_path / "text")
    assert {name: value for name, value in found.items() if name not in of_the_machine} == {
        name: value
        for name, value in values.items()
        if value  # it does not print empty ones
    }
