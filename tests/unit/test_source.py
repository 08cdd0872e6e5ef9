"""Rules for the source that neither the linter nor `lint-imports` checks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("driver", "tests", "benchmarks", "demo", "tools")
LONGEST = 300  # lines of a module: what fits in the head


def test_only_the_command_reads_the_environment() -> None:
    """But for the stand-in, iptables' lock file, named by a variable, and protobuf's switch."""
    driver = ROOT / "driver"
    found = {
        str(file.relative_to(driver)): len(re.findall(r"os\.environ|getenv", file.read_text()))
        for file in driver.rglob("*.py")
    }
    assert {name: times for name, times in found.items() if times} == {
        "__main__.py": 1,
        "standin.py": 1,
        "host/firewall/iptables_legacy.py": 1,
        "flannel/etcd/members.py": 1,
    }


def sources() -> dict[str, str]:
    """Return the text of each file by its name."""
    found = {
        str(file.relative_to(ROOT)): file.read_text()
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and file.suffix in {"", ".py"}  # a script in tools/ has none
    }
    assert {name.partition("/")[0] for name in found} == {*FOLDERS}
    return found


def test_no_module_is_long() -> None:
    lengths = {name: text.count("\n") for name, text in sources().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_nothing_is_imported_from_a_test_file() -> None:
    """What several tests use lies in a support module; fixtures lie in conftest."""
    imports = re.compile(
        r"^ *(?:from (?:tests\b|\.)|import tests\b)(?:.*|[^(\n]*\([^)]*)\b(?:test_\w+|conftest)\b",
        re.MULTILINE,
    )
    assert {
        name: found for name, text in sources().items() if (found := imports.findall(text))
    } == {}
