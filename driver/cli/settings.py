"""Options of commands that are settings. `Config.read` takes them by their names."""

from __future__ import annotations

from argparse import ArgumentParser

from driver.config import SETTINGS

WITH_DEFAULT = "{0.help} (default {0.default}; {0.variable})"


def add_settings(parser: ArgumentParser, *options: str, words: str = WITH_DEFAULT) -> None:
    """Add these options; `words` formats the help of a `Setting`."""
    for setting in SETTINGS:
        if setting.option in options:
            parser.add_argument(
                setting.option,
                dest=setting.option,
                metavar=setting.option.strip("-").upper(),
                help=words.format(setting),
            )
