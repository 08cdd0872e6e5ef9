"""The command line `docker-flannel`: serve, status and more; also `docker flannel …`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from driver import __version__
from driver.config import SETTINGS, Config, Footing
from driver.errors import BadRequest, Conflict, FlannelError, Unavailable, UnknownObject

METADATA = {
    "SchemaVersion": "0.1.0",
    "Vendor": "docker-flannel",
    "Version": __version__,
    "ShortDescription": "Flannel networks on this host",
}

DAEMON_JSON = Path("/etc/docker/daemon.json")
OPTIONS = [setting for setting in SETTINGS if not setting.secret]
OCCUPIED = 69  # exit status when another instance is at work, which no restart changes


def main(argv: list[str] | None = None) -> int:
    """Run one command; give the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["docker-cli-plugin-metadata"]:
        print(json.dumps(METADATA))
        return 0
    # Docker runs a CLI plugin with the plugin's name first: docker-flannel flannel status
    args = _parser().parse_args(words[1:] if words[:1] == ["flannel"] else words)
    options = {s.option: getattr(args, _attribute(s.option), None) for s in SETTINGS}
    environment = dict(os.environ)
    try:
        if args.command == "serve":
            _serve(options, environment)
        else:
            COMMANDS[args.command](Config.read(options, environment), args)
    except FlannelError as error:
        print(f"docker-flannel: {error}", file=sys.stderr)
        occupied = args.command == "serve" and isinstance(error, Conflict)
        return OCCUPIED if occupied else 1
    return 0


# Each command loads what it needs: how soon a host is reachable begins with this.


def _serve(options: Mapping[str, str | None], environment: Mapping[str, str]) -> None:
    from driver.service import serve  # noqa: PLC0415

    try:
        config: Config | BadRequest = Config.read(options, environment)
    except BadRequest as error:
        config = error
    serve(Footing.read(options, environment), config)


def _init(config: Config, args: argparse.Namespace) -> None:
    from driver.cli.init import init_config  # noqa: PLC0415
    from driver.flannel.etcd.client import Etcd  # noqa: PLC0415

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


def _forget(config: Config, args: argparse.Namespace) -> None:
    from driver.cli import client  # noqa: PLC0415

    told = client.ask(config.sockets[0], "POST", "/Upkeep.Forget", {"What": args.what})
    print(f"forgotten: {told['Forgotten']}")


def _status(config: Config, args: argparse.Namespace) -> None:
    from driver.api import status  # noqa: PLC0415
    from driver.cli import client  # noqa: PLC0415

    found = client.ask(config.sockets[0], "GET", "/status")
    text = f"{json.dumps(found, indent=2)}\n" if args.format == "json" else status.render(found)
    print(text, end="")


def _ps(config: Config, args: argparse.Namespace) -> None:
    from driver.cli import client, ps  # noqa: PLC0415

    found = ps.rows(client.ask(config.sockets[0], "GET", "/status"), client.containers())
    print(f"{json.dumps(found, indent=2)}\n" if args.json else ps.render(found), end="")


def _ports(config: Config, args: argparse.Namespace) -> None:
    from driver.api import ports  # noqa: PLC0415
    from driver.cli import client  # noqa: PLC0415

    found = client.ask(config.sockets[0], "GET", "/ports")
    ports.name(found, client.containers())
    chosen = ports.of(found, args.container) if args.container else found["ports"]
    if args.container and not chosen:
        raise UnknownObject(
            f"no published port belongs to {args.container!r}, as a container's name or id or an "
            "endpoint's id; `docker flannel ports` lists all"
        )
    print(f"{json.dumps(chosen, indent=2)}\n" if args.json else ports.render(chosen), end="")


def _setup_daemon(_: Config, args: argparse.Namespace) -> None:
    from driver.cli import setup_daemon  # noqa: PLC0415

    if args.write:
        print(setup_daemon.write(args.file), end="")
        return
    lines, words = setup_daemon.advice(args.file)
    print(lines, end="", flush=True)  # alone on stdout, to be put into a file
    print(words, end="", file=sys.stderr)


def _docker_opts(config: Config, _: argparse.Namespace) -> None:
    from driver.cli import client  # noqa: PLC0415
    from driver.flannel import docker_options  # noqa: PLC0415

    print(docker_options.render(client.ask(config.sockets[0], "GET", "/status")), end="")


def _adopt(config: Config, _: argparse.Namespace) -> None:
    from driver.cli import client  # noqa: PLC0415

    told = client.ask(config.sockets[0], "POST", "/Upkeep.Adopt", client.described())
    print("\n".join(f"taken over: {what}" for what in told["Adopted"]) or "nothing to take over")
    if told["Left"]:
        raise Unavailable("; ".join(told["Left"]))


def _backup(config: Config, args: argparse.Namespace) -> None:
    from driver.host import journal  # noqa: PLC0415

    journal.copy(config.state_dir / journal.NAME, args.file)


def _restore(config: Config, args: argparse.Namespace) -> None:
    from driver.host import journal  # noqa: PLC0415
    from driver.service import Lock  # noqa: PLC0415

    Lock(config.state_dir / "lock").take()  # Conflict while the plugin runs
    kept = journal.restore(args.file, config.state_dir / journal.NAME)
    print(f"restored; what was there before is {kept}" if kept else "restored")


COMMANDS: dict[str, Callable[[Config, argparse.Namespace], None]] = {
    "init": _init,
    "forget": _forget,
    "status": _status,
    "ps": _ps,
    "ports": _ports,
    "setup-daemon": _setup_daemon,
    "docker-opts": _docker_opts,
    "adopt": _adopt,
    "backup": _backup,
    "restore": _restore,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="docker-flannel", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer Docker until SIGTERM")
    for s in OPTIONS:
        serve.add_argument(s.option, help=f"{s.help} (default {s.default}; {s.variable})")
    show = commands.add_parser("status", help="show lease, networks, endpoints, ports, problems")
    show.add_argument("--format", choices=("text", "json"), default="text", help="default text")
    listed = commands.add_parser("ps", help="list containers with Docker's and lease address")
    listed.add_argument("--json", action="store_true", help="as JSON")
    init = commands.add_parser("init", help="write flannel's network config where etcd has none")
    for s in OPTIONS:
        if s.option.startswith("--etcd") or s.option in ("--network", "--subnet-len"):
            init.add_argument(s.option, help=f"{s.help} ({s.variable})")
    init.add_argument("--backend", choices=("vxlan", "host-gw"), default="vxlan")
    forget = commands.add_parser(
        "forget", help="give up a network that Docker removed while the plugin was not running"
    )
    forget.add_argument("what", help="beginning of the network's id, or its block")
    adopt = commands.add_parser(
        "adopt", help="ask Docker for networks and containers that the plugin does not know"
    )
    setup = commands.add_parser(
        "setup-daemon", help="show daemon.json's lines for `-d flannel` with nothing else"
    )
    setup.add_argument("--write", action="store_true", help="put them into the file")
    setup.add_argument("--file", type=Path, default=DAEMON_JSON, help="default %(default)s")
    backup = commands.add_parser("backup", help="copy the state to a file, also while it is used")
    restore = commands.add_parser("restore", help="put such a copy back; stop the plugin first")
    for command in (backup, restore):
        command.add_argument("file", type=Path, help="the copy")
        option = next(s for s in SETTINGS if s.option == "--state-dir")
        command.add_argument(option.option, help=f"{option.help} (default {option.default})")
    opts = commands.add_parser("docker-opts", help="show dockerd's settings for this lease")
    ports = commands.add_parser("ports", help="list the published ports, as this host has them")
    ports.add_argument("container", nargs="?", default="", help="a name, or the beginning of an id")
    ports.add_argument("--json", action="store_true", help="as JSON")
    socket = next(s for s in SETTINGS if s.option == "--socket")
    for command in (show, listed, ports, forget, adopt, opts):
        command.add_argument(
            socket.option, help=f"{socket.help} (default {socket.default}; {socket.variable})"
        )
    return parser


def _attribute(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


if __name__ == "__main__":
    sys.exit(main())
