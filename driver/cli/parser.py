"""The parser of the command line."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from driver import __version__
from driver.cli import COMMANDS, GROUPS
from driver.cli.call import Call
from driver.config import SETTINGS

SERVE = "serve"  # Docker does not start the service: it is there before Docker


def parser_of(call: Call) -> ArgumentParser:
    """Return the parser for a call's words, which knows only the command that they begin with.

    Exits with 2 if there is no such command.
    """
    parser = ArgumentParser(
        prog=call.program,
        usage=f"{call.program} COMMAND [OPTIONS]",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        prog=call.program, required=True, metavar="COMMAND", help=SUPPRESS
    )
    name = call.words[0]
    if name == SERVE and call.options is not None:
        parser.error("serve is for the service: `systemctl start docker-flannel` starts it")
    if name in COMMANDS:
        fill(commands.add_parser(name, description=summary(name)), name)
    elif name.startswith("-"):
        parser.description = "\n".join(_overview(call))
    else:
        parser.error(f"{name!r} is no command; `{call.program} --help` lists them")
    return parser


def load(name: str) -> ModuleType:
    """Return the module of a command; to load all takes time."""
    return import_module(f"driver.cli.{name.replace('-', '_')}")


def summary(name: str) -> str:
    """Return what a command does, in one line."""
    return str(load(name).__doc__).partition("\n")[0]


def fill(parser: ArgumentParser, name: str) -> None:
    """Add a command's arguments to a parser."""
    module = load(name)
    parser.set_defaults(run=module.run)
    for s in SETTINGS:
        if s.option in module.SETTINGS:
            shown = f"{s.help} (default {s.default}; {s.variable})"
            parser.add_argument(s.option, dest=s.option, metavar="VALUE", help=shown)
    if hasattr(module, "arguments"):
        module.arguments(parser)


def _overview(call: Call) -> Iterator[str]:
    yield "Flannel networks for Docker: containers on several hosts reach each other."
    width = max(map(len, COMMANDS))
    for title, names in GROUPS.items():
        if names != (SERVE,) or call.options is None:
            yield f"\n{title}:"
            yield from (f"  {name:{width}}  {summary(name)}" for name in names)
    yield f"\n`{call.program} COMMAND --help` says more about a command."
