"""Print what a command found as tables or as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from driver.text import visible

Document = dict[str, Any]
T = TypeVar("T")


def add_format(parser: ArgumentParser) -> None:
    """Add the option `--format`."""
    formats = ("table", "json")
    parser.add_argument("--format", choices=formats, default="table", help="default %(default)s")


def show(found: T, form: str, render: Callable[[T], str]) -> None:
    """Print something in a format of `add_format`; `render` returns it as tables."""
    print(f"{json.dumps(found, indent=2)}\n" if form == "json" else render(found), end="")


def to_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table with a header line and a line for each row.

    Shape: `columns` are keys of rows. None is shown as "-", a missing key as nothing.
    """
    from tabulate import tabulate  # noqa: PLC0415 - takes as long to load as all the rest

    heads = [name.replace("_", " ").upper() for name in columns]
    cells = [[_cell(row.get(name, "")) for name in columns] for row in rows]
    table = tabulate(cells, heads, tablefmt="plain", disable_numparse=True, missingval="-")
    return f"{table}\n"


def _cell(value: object) -> object:
    return visible(value) if isinstance(value, str) else value
