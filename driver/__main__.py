"""The command line `docker-flannel`: serve, status and more; also `docker flannel …`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driver import __version__
from driver.cli import COMMANDS
from driver.cli.program import Program
from driver.config import SETTINGS, Config
from driver.docker import endpoint
from driver.docker.engine import Engine
from driver.errors import FlannelError
from driver.text import visible

if TYPE_CHECKING:
    from driver.flannel.etcd.registry import Registry
    from driver.flannel.etcd.settings import EtcdSettings

METADATA = {
    "SchemaVersion": "0.1.0",
    "Vendor": "docker-flannel",
    "Version": __version__,
    "ShortDescription": "Flannel networks on this host",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["docker-cli-plugin-metadata"]:
        print(json.dumps(METADATA))
        return 0
    # Docker runs a CLI plugin with the plugin's name first: docker-flannel flannel status
    words = words[1:] if words[:1] == ["flannel"] else words
    args = _parser(words).parse_args(words)
    if isinstance(sys.stdout, TextIOWrapper):  # not None, as it is where it was closed
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args.run(_Program(vars(args), dict(os.environ)), args)
        print(end="", flush=True)
    except FlannelError as error:
        print(f"docker-flannel: {visible(str(error))}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is written at the exit
        return 1
    return 0


def _parser(words: list[str]) -> argparse.ArgumentParser:
    """Build the parser of the named command, or of all: loading them takes time."""
    parser = argparse.ArgumentParser(prog="docker-flannel", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in words[:1] if set(words[:1]) & set(COMMANDS) else COMMANDS:
        module = import_module(f"driver.cli.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=str(module.__doc__).partition("\n")[0])
        command.set_defaults(run=module.run)
        for s in SETTINGS:
            if s.option in module.SETTINGS:
                shown = f"{s.help} (default {s.default}; {s.variable})"
                command.add_argument(s.option, dest=s.option, metavar="VALUE", help=shown)
        if hasattr(module, "arguments"):
            module.arguments(command)
    return parser


class _Program(Program):
    """Loads a package only when a command uses it."""

    def __init__(self, options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._settings = options, environment

    @cached_property
    def config(self) -> Config:
        return Config.read(*self._settings)

    @cached_property
    def docker(self) -> Engine:
        return Engine(endpoint.find(*self._settings))

    def serve(self) -> None:
        from driver.service import serve  # noqa: PLC0415

        serve(*self._settings)

    def registry(self, settings: EtcdSettings) -> Registry:
        from driver.flannel.etcd.client import Etcd  # noqa: PLC0415

        return Etcd(settings)

    def backup(self, file: Path) -> None:
        from driver.host import journal  # noqa: PLC0415

        journal.copy(self.config.state_dir / journal.NAME, file)

    def restore(self, file: Path) -> Path | None:
        from driver.host import journal  # noqa: PLC0415
        from driver.host.lock import Lock  # noqa: PLC0415

        Lock(self.config.state_dir).take()
        return journal.restore(file, self.config.state_dir / journal.NAME)


if __name__ == "__main__":
    sys.exit(main())
