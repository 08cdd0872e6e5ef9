"""The command line `docker-flannel`: serve, status and more; also `docker flannel …`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import closing
from functools import cached_property
from io import TextIOWrapper
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driver.cli import complete
from driver.cli.call import METADATA, read
from driver.cli.parser import parser_of
from driver.cli.program import Program
from driver.config import Basics, Config
from driver.docker import endpoint
from driver.docker.engine import Engine
from driver.errors import FlannelError
from driver.model.preflight import VXLAN_PORT
from driver.setup.sources import Sources
from driver.text import visible

if TYPE_CHECKING:
    from driver.flannel.etcd.registry import Registry
    from driver.flannel.etcd.settings import EtcdSettings
    from driver.model.facts import External
    from driver.model.preflight import Preflight
    from driver.model.records import Overlay


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 1 for a failure, 2 for a wrong command line."""
    words = sys.argv[1:] if argv is None else argv
    environment = dict(os.environ)
    if words[:1] == ["docker-cli-plugin-metadata"]:
        print(json.dumps(METADATA))
        return 0
    if words and words[0] in complete.REQUESTS:
        print("\n".join(complete.answer(words, _Program({}, environment, {}))))
        return 0
    call = read(words)
    args = parser_of(call).parse_args(call.words)
    if isinstance(sys.stdout, TextIOWrapper):  # not None, as it is where it was closed
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        program = _Program(vars(args), environment, call.options or {})
        if call.options is not None:
            endpoint.find(call.options, environment)  # refuses another host's Docker
        args.run(program, args)
        print(end="", flush=True)
    except FlannelError as error:
        print(f"{call.program}: {visible(str(error))}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is written at the exit
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # as a shell says it
    return 0


class _Program(Program):
    """Loads a package only when a command uses it."""

    def __init__(
        self, options: Mapping[str, Any], environment: Mapping[str, str], docker: Mapping[str, str]
    ) -> None:
        self._settings, self._docker = (options, environment), (docker, environment)

    @cached_property
    def sources(self) -> Sources:
        return Sources.read(*self._settings)

    @cached_property
    def config(self) -> Config:
        self.sources.check()
        return Config.read(self.sources.options, self.sources.variables)

    @property
    def socket(self) -> Path:
        return Basics.read(self.sources.options, self.sources.variables).sockets[0]

    @cached_property
    def docker(self) -> Engine:
        return Engine(endpoint.find(*self._docker))

    def serve(self) -> None:
        from driver.service import serve  # noqa: PLC0415

        serve(self.sources)

    def registry(self, settings: EtcdSettings) -> Registry:
        from driver.flannel.etcd.client import Etcd  # noqa: PLC0415

        return Etcd(settings)

    def preflight(self, overlay: Overlay | None) -> Preflight:
        from driver.host import preflight  # noqa: PLC0415

        port = overlay.port if overlay else VXLAN_PORT
        return preflight.look(self.config.iface or None, self.config.public_ip, port)

    def limit(self, settings: EtcdSettings) -> None:
        from driver.flannel.etcd.users import Administrator  # noqa: PLC0415

        with closing(Administrator(settings)) as etcd:
            etcd.limit_to(settings.prefix)

    def underlay(self, iface: str, public_ip: IPv4Address | None) -> External:
        from driver.host import surroundings, underlay  # noqa: PLC0415
        from driver.host.netlink.channel import Channel  # noqa: PLC0415

        with closing(Channel()) as channel:
            return underlay.external(surroundings.look(channel), iface or None, public_ip)

    def backup(self, file: Path) -> None:
        from driver.host import journal  # noqa: PLC0415

        journal.copy(self.config.state_dir / journal.NAME, file)

    def restore(self, file: Path) -> Path | None:
        from driver.host import journal  # noqa: PLC0415
        from driver.host.lock import Lock  # noqa: PLC0415

        Lock(self.config.state_dir).take()
        return journal.restore(file, self.config.state_dir / journal.NAME)

    def check_unused(self) -> None:
        from driver import removal  # noqa: PLC0415

        removal.check_unused(self._basics())

    def _basics(self) -> Basics:
        self.sources.check()
        return Basics.read(self.sources.options, self.sources.variables)

    def take_down(self) -> bool:
        from driver import removal  # noqa: PLC0415

        return removal.take_down(self._basics())


if __name__ == "__main__":
    sys.exit(main())
