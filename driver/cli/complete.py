"""Completion: what may stand at the end of a command line.

Docker's completion runs `docker-flannel __complete flannel WORD...`, the last word as far as it is
typed. The answer has a line for each candidate, `value<TAB>description`, and then a directive.
Source: spf13/cobra, completions.go.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from driver.cli import COMMANDS
from driver.cli.call import PLUGIN
from driver.cli.parser import fill, load, summary
from driver.cli.program import Program
from driver.errors import FlannelError
from driver.text import visible

REQUESTS = {"__complete": True, "__completeNoDesc": False}  # whether descriptions are wanted
Found = tuple[Mapping[str, str], str]  # values with descriptions, and a directive
FILES, NO_FILES = ":0", ":4"  # whether the shell proposes files where there is no candidate
# in a command's VALUES by the argument's name: returns values with descriptions, or FlannelError
Values = Callable[[Program], Mapping[str, str]]


def answer(words: Sequence[str], program: Program) -> Iterator[str]:
    """Return the lines of the answer to a request, its name the first word."""
    request, *before = words
    typed = before.pop() if before else ""
    try:
        found, directive = _find(_without_docker(before), typed, program)
    except FlannelError:  # a command line that is being typed is no place to say why
        found, directive = {}, NO_FILES
    for value, meaning in found.items():
        if value.startswith(typed):
            shown = meaning and REQUESTS[request]
            yield f"{visible(value)}\t{visible(meaning)}" if shown else visible(value)
    yield directive


def _without_docker(before: list[str]) -> list[str]:
    """Leave out `flannel` and what is before it: Docker's bash completion passes some of that."""
    if PLUGIN in before and before[0] not in COMMANDS:
        return before[before.index(PLUGIN) + 1 :]
    return before


def _find(before: list[str], typed: str, program: Program) -> Found:
    if before in ([], ["help"]):
        return {name: summary(name) for name in COMMANDS}, NO_FILES
    command = before[0]
    if command not in COMMANDS:
        return {}, NO_FILES
    parser = ArgumentParser(prog=command)
    fill(parser, command)
    actions = parser._actions
    options = {name: action for action in actions for name in action.option_strings}
    valued = {name: action for name, action in options.items() if action.nargs != 0}
    if before[-1] in valued:
        return _values(command, valued[before[-1]], program)
    name, equals, _ = typed.partition("=")
    if equals and name in valued:
        found, directive = _values(command, valued[name], program)
        return {f"{name}={value}": meaning for value, meaning in found.items()}, directive
    if typed.startswith("-"):
        left = {name: action for name, action in options.items() if name not in before}
        known = {"prog": command}  # what a help text may name, with the action's own
        return {n: (a.help or "") % (known | vars(a)) for n, a in left.items()}, NO_FILES
    places = [action for action in actions if not action.option_strings]
    filled = sum(a not in valued and not b.startswith("-") for a, b in pairwise(before))
    return _values(command, places[filled], program) if filled < len(places) else ({}, NO_FILES)


def _values(command: str, action: Action, program: Program) -> Found:
    if action.choices:
        return {str(choice): "" for choice in action.choices}, NO_FILES
    values: Values | None = getattr(load(command), "VALUES", {}).get(action.dest)
    return ({}, FILES) if values is None else (values(program), NO_FILES)
