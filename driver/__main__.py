"""The command line `docker-flannel`: serve, init, status, forget; also `docker flannel …`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from driver import __version__
from driver.config import SETTINGS, Config
from driver.errors import BadRequest, FlannelError

METADATA = {
    "SchemaVersion": "0.1.0",
    "Vendor": "docker-flannel",
    "Version": __version__,
    "ShortDescription": "Flannel networks on this host",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; give the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["docker-cli-plugin-metadata"]:
        print(json.dumps(METADATA))
        return 0
    # Docker runs a CLI plugin with the plugin's name first: docker-flannel flannel status
    args = _parser().parse_args(words[1:] if words[:1] == ["flannel"] else words)
    options = {s.option: getattr(args, _attribute(s.option), None) for s in SETTINGS}
    try:
        config = Config.read(options, os.environ)
        if args.command == "serve":
            _serve(config)
        elif args.command == "init":
            _init(config, args)
        elif args.command == "forget":
            _forget(config.sockets[0], args.what)
        else:
            _status(config.sockets[0], args.format)
    except FlannelError as error:
        print(f"docker-flannel: {error}", file=sys.stderr)
        return 1
    return 0


# Each command loads what it needs: how soon a host is reachable begins with this.


def _serve(config: Config) -> None:
    from driver.service import serve  # noqa: PLC0415

    serve(config)


def _init(config: Config, args: argparse.Namespace) -> None:
    from driver.etcd import Etcd  # noqa: PLC0415
    from driver.init_config import init_config  # noqa: PLC0415

    if config.etcd is None:
        raise BadRequest("init needs --etcd-endpoints")
    overlay = init_config(
        Etcd(config.etcd),
        config.etcd.prefix,
        config.network,
        config.subnet_len if args.subnet_len else None,
        args.backend,
    )
    print(
        f"the flannel network is {overlay.network}, a /{overlay.subnet_len} for each host, "
        f"backend {overlay.backend}"
    )


def _forget(socket: Path, what: str) -> None:
    from driver import client  # noqa: PLC0415

    told = client.ask(socket, "POST", "/Upkeep.Forget", {"What": what})
    print(f"forgotten: {told['Forgotten']}")


def _status(socket: Path, form: str) -> None:
    from driver import client, status  # noqa: PLC0415

    found = client.ask(socket, "GET", "/status")
    print(f"{json.dumps(found, indent=2)}\n" if form == "json" else status.render(found), end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="docker-flannel", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer Docker until SIGTERM")
    for s in SETTINGS:
        serve.add_argument(s.option, help=f"{s.help} (default {s.default}; {s.variable})")
    show = commands.add_parser("status", help="show lease, networks, endpoints, ports, problems")
    show.add_argument("--format", choices=("text", "json"), default="text", help="default text")
    init = commands.add_parser("init", help="write flannel's network config where etcd has none")
    for s in SETTINGS:
        if s.option.startswith("--etcd") or s.option in ("--network", "--subnet-len"):
            init.add_argument(s.option, help=f"{s.help} ({s.variable})")
    init.add_argument("--backend", choices=("vxlan", "host-gw"), default="vxlan")
    forget = commands.add_parser(
        "forget", help="give up a network that Docker removed while the plugin was not running"
    )
    forget.add_argument("what", help="beginning of the network's id, or its block")
    socket = next(s for s in SETTINGS if s.option == "--socket")
    for command in (show, forget):
        command.add_argument(
            socket.option, help=f"{socket.help} (default {socket.default}; {socket.variable})"
        )
    return parser


def _attribute(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


if __name__ == "__main__":
    sys.exit(main())
