"""The pages for users: links lead somewhere, tests run the commands, messages are the code's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages

TESTS = pages.ROOT / "tests"
MESSAGES = "docs/troubleshooting.md"
VALUE = "…"  # stands for a value in a message
ELSEWHERE = {
    ("README.md", "See it work"),  # .ci/run calls both
    ("docs/install.md", "Build the package"),  # all of tests/vm installs what that builds
    ("docs/install.md", "From the source"),  # test_install runs what it calls, elsewhere
    ("plugin/README.md", "Building it"),  # needs an image registry; tests take a base instead
}


@pytest.mark.parametrize(
    "page", sorted({*pages.pages(), *(p.name for p in pages.ROOT.glob("*.md"))})
)
def test_links_lead_somewhere(page: str) -> None:
    for target in pages.links(page):
        path, _, anchor = target.partition("#")
        file = (pages.ROOT / page).parent / path if path else pages.ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            named = str(file.resolve().relative_to(pages.ROOT))
            assert anchor in pages.anchors(named), f"{page} links to {target}"


def taken() -> Iterator[tuple[str, str]]:
    """Yield page and heading of each call of `commands` or `blocks` in a test that runs them."""
    for path in [*TESTS.glob("e2e/**/*.py"), *TESTS.glob("vm/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                words = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if node.func.attr in {"commands", "blocks"} and words[1:]:
                    yield str(words[0]), str(words[1])


def test_each_command_is_run_by_a_test() -> None:
    found = {(page, heading) for page in pages.pages() for heading in pages.sections(page)
             if pages.blocks(page, heading)}  # fmt: skip
    assert found == set(taken()) | ELSEWHERE
    assert found >= ELSEWHERE


def sentences(path: Path) -> Iterator[str]:
    """Yield the texts of a module, `…` where it puts in a value."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else VALUE for v in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_on_the_page_are_those_of_the_code() -> None:
    code = "\n".join(s for path in (pages.ROOT / "driver").rglob("*.py") for s in sentences(path))
    quoted = re.findall(r"^### `(.+)`$", pages.text(MESSAGES), re.M)
    assert len(quoted) > 10
    assert [message for message in quoted if message not in code] == []
