"""Write what a command found: tables for a person, or JSON for a program."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def add_format(parser: ArgumentParser) -> None:
    """Add the option `--format`."""
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="default %(default)s"
    )


def show(found: T, form: str, render: Callable[[T], str]) -> None:
    """Print something in one of these formats; `render` returns it as tables."""
    print(f"{json.dumps(found, indent=2)}\n" if form == "json" else render(found), end="")


def to_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table: a line of heads, and a line for each row; "-" stands for None."""
    from tabulate import tabulate  # noqa: PLC0415 - takes longer to load than all the rest

    lines = tabulate(list(rows), heads, tablefmt="plain", disable_numparse=True, missingval="-")
    return f"{lines}\n"
