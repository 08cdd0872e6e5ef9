"""Show the settings: what is in force, where it comes from, what a restart would change."""

from __future__ import annotations

from argparse import Namespace

from driver.cli import client
from driver.cli.output import Document, add_format, show, to_table
from driver.cli.program import Program
from driver.errors import Unavailable
from driver.setup import in_force

SETTINGS = ("--socket",)
RESTART = "`systemctl restart docker-flannel` puts changed settings into effect\n"
NO_SERVICE = "no service says what is in force; a new one would have these settings:\n"
COLUMNS = ("setting", "value", "from", "in_effect")

arguments = add_format


def run(program: Program, args: Namespace) -> None:
    """Ask the plugin, or read the files if it does not answer."""
    try:
        found = client.ask(program.socket, "GET", "/settings")
    except Unavailable as error:
        program.sources.check()
        found = in_force.document(program.sources)
        found["problems"].insert(0, str(error))
    show(found, args.format, render)


def render(doc: Document) -> str:
    """Return the settings as a table, and the problems below it."""
    columns = COLUMNS if doc["running"] else COLUMNS[:-1]
    rows = [
        {**s, "setting": s["variable"], "in_effect": s["note"] or "yes"} for s in doc["settings"]
    ]
    parts = ["" if doc["running"] else NO_SERVICE, to_table(columns, rows)]
    if any(s["note"] for s in doc["settings"]):
        parts.append(f"\n{RESTART}")
    if doc["problems"]:
        parts.append("\n" + to_table(("problem",), [{"problem": p} for p in doc["problems"]]))
    return "".join(parts)
