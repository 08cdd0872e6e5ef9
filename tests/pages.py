"""The pages for users, and the commands on them, which tests run.

A test takes a section's commands with `commands`; `unit/test_pages.py` finds those calls in the
tests, and fails for a section whose commands no test takes.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = "README.md"
FOLDERS = ("docs", "plugin", "packaging/examples")
_INLINE = re.compile(r"[`*_]|\[([^]]*)\]\([^)]*\)")


def pages() -> list[str]:
    """Return the paths of all pages for users, from the project's root."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
    return [README, *(str(path.relative_to(ROOT)) for path in found)]


def text(page: str) -> str:
    """Return a page's Markdown."""
    return (ROOT / page).read_text(encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """Return the text below each heading of a page, up to the next heading; `` is the top."""
    found, heading, fenced = {"": ""}, "", False
    for line in text(page).splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            heading = _INLINE.sub(r"\1", line.lstrip("#").strip())
            assert heading not in found, f"{page} has two sections {heading}"
            found[heading] = ""
        found[heading] += line
    return found


def blocks(page: str, heading: str, language: str = "sh") -> list[str]:
    """Return the fenced blocks of a section in that language, without their fences."""
    return re.findall(rf"^```{language}\n(.*?)^```$", sections(page)[heading], re.M | re.S)


def commands(page: str, heading: str) -> list[str]:
    """Return a section's commands in their order, with continued lines joined, without comments."""
    lines = "".join(blocks(page, heading)).replace("\\\n", "").splitlines()
    stripped = (re.sub(r"(^|\s+)# .*", "", line) for line in lines)
    return [" ".join(line.split()) for line in stripped if line]


def anchors(page: str) -> set[str]:
    """Return what a link to a heading of the page has after its #."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in sections(page))
    return {word.replace(" ", "-") for word in words}


def links(page: str) -> list[str]:
    """Return the targets of the page's links and pictures, except those on other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", text(page))
    return [target for target in found if "://" not in target]
