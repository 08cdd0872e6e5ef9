"""Sets up a flannel network and makes this host its first one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from driver.errors import BadRequest, Conflict, FlannelError, Unavailable
from driver.files import read_file, text_of
from driver.flannel.etcd.registry import KeyRange, Registry
from driver.flannel.etcd.settings import DEFAULT_PORT, EtcdSettings
from driver.flannel.network_config import read_config
from driver.flannel.records import config_key
from driver.model.records import Overlay
from driver.setup import entering
from driver.setup.entering import Wanted
from driver.setup.joined import Joined
from driver.setup.machine import Document, Machine
from driver.setup.token import Token

USUAL_LENGTH = 21  # 31 other hosts in a /16, and 32 networks of 61 containers on each
FEWEST_BITS = 3  # eight hosts, where the network is small
PATIENCE_S = 60.0
EVERY_S = 0.3
DEBIANS = EtcdSettings.read(f"http://127.0.0.1:{DEFAULT_PORT}")  # as the package starts it
BACKEND = "vxlan"


@dataclass(frozen=True, slots=True)
class Network:
    """The network config that was asked for; None is not said.

    `usual`: the network if neither is said nor in etcd.
    """

    usual: IPv4Network
    network: IPv4Network | None = None
    subnet_len: int | None = None
    backend: str | None = None

    @classmethod
    def read(
        cls, usual: IPv4Network, network: str | None, subnet_len: int | None, backend: str | None
    ) -> Network:
        """Return what the command line says. Errors: BadRequest, BadRecord."""
        try:
            whole = None if network is None else IPv4Network(network)
        except ValueError as error:
            raise BadRequest(
                f"--network {network!r} is no IPv4 prefix like 10.2.0.0/16: {error}"
            ) from None
        asked = cls(usual, whole, subnet_len, backend)
        if subnet_len == 0:  # not set, in flannel's config
            raise BadRequest("--subnet-len 0 is no prefix length of a subnet")
        asked.text()
        return asked

    def text(self) -> str:
        """Return the network config to write. Errors: BadRecord if it would be invalid."""
        whole = self.network or self.usual
        length = self.subnet_len or max(USUAL_LENGTH, whole.prefixlen + FEWEST_BITS)
        backend = {"Type": self.backend or BACKEND}
        text = json.dumps({"Network": str(whole), "SubnetLen": length, "Backend": backend})
        read_config(text)
        return text


def init(
    machine: Machine,
    etcd: EtcdSettings | None,
    prefix: str,
    network: Network,
    more: Mapping[str, str],
    *,
    asked: bool = False,
) -> tuple[Overlay, Token, Document]:
    """Set up the network; return it, the token for other hosts, and the status.

    `etcd`: the one to use, None: one is set up on this host. `asked`: it comes from the command
    line, not from the settings. `more` are settings of this host alone.
    Errors: FlannelError. If the service cannot use the settings, they are as they were.
    """
    own = machine.etcd.ours or etcd is None
    if own and etcd is not None and asked:
        raise Conflict(
            "the etcd of this host's network runs on this host: run `docker-flannel leave` before "
            "you use another one"
        )
    if own:
        return _with_own(machine, prefix, network, more)
    assert etcd is not None  # noqa: S101 - else it is our own
    return _with(machine, etcd, network, more, asked=asked)


def _with_own(
    machine: Machine, prefix: str, network: Network, more: Mapping[str, str]
) -> tuple[Overlay, Token, Document]:
    machine.check_service()
    now = {**machine.in_force(), **more}
    entering.check_source(machine, now)
    listen, public = machine.addresses(now)
    client = machine.etcd.settings(public, prefix, "client")
    authority = text_of(client.cafile) if client.cafile else ""
    entering.check_elsewhere(Token(str(client.endpoints[0]), client.prefix, authority), now)
    status = machine.running()
    machine.check_networks(status, entering.WHY, allowed="etcd")
    machine.etcd.check_free(listen, lambda: machine.registry(DEBIANS).read(KeyRange("/"))[1])
    record = Joined.of(machine.folder)
    with entering.or_undo(machine, record):
        if record.etcd is None:
            record.etcd = machine.etcd.state()
            record.save()
        machine.etcd.set_up(listen, public, machine.say)
        root = machine.etcd.settings(public, prefix, "root")
        _until_limited(machine, root)
        overlay = define(machine.registry(client), client.prefix, network)
        token = token_of(client)
        contested = entering.check_etcd(machine, client, now, status)
        wanted = Wanted({**entering.settings_of(token, machine.folder), **more})
        return overlay, token, entering.enter(machine, record, wanted, contested=contested)


def _until_limited(machine: Machine, root: EtcdSettings) -> None:
    """Wait until etcd answers, and limit who may do what. Errors: FlannelError."""
    end = machine.clock() + PATIENCE_S
    while True:
        try:
            machine.limit(root)
        except FlannelError:
            if machine.clock() >= end:
                raise
            machine.sleep(EVERY_S)
        else:
            return


def _with(
    machine: Machine,
    etcd: EtcdSettings,
    network: Network,
    more: Mapping[str, str],
    *,
    asked: bool,
) -> tuple[Overlay, Token, Document]:
    token = token_of(etcd)
    token.check_clock(machine.now())
    try:
        machine.check_service()
    except Unavailable as error:  # the managed plugin's hosts need the network config, too
        overlay = define(machine.registry(etcd), etcd.prefix, network)
        raise Unavailable(
            f"etcd has the network config ({describe(overlay)}), but {error}"
        ) from None
    now = {**machine.in_force(), **more}
    entering.check_source(machine, now)
    entering.check_elsewhere(token, now)
    status = machine.running()
    machine.check_networks(status, entering.WHY, allowed="etcd")
    machine.say(f"asking etcd at {token.hosts}")
    overlay = define(machine.registry(etcd), etcd.prefix, network)
    contested = entering.check_etcd(machine, etcd, now, status)
    wanted = Wanted(more)
    if asked:
        settings = {**entering.settings_of(token, machine.folder), **more}
        wanted = Wanted(settings, entering.files_of(token))
    record = Joined.of(machine.folder)
    with entering.or_undo(machine, record):
        return overlay, token, entering.enter(machine, record, wanted, contested=contested)


def token_of(etcd: EtcdSettings) -> Token:
    """Return the token that stands for settings, with the content of their files.

    Errors: BadRequest naming a file that cannot be read.
    """
    return Token(
        ",".join(map(str, etcd.endpoints)),
        etcd.prefix,
        _content(etcd.cafile),
        _content(etcd.certfile),
        _content(etcd.keyfile),
        etcd.username,
        etcd.password,
    )


def _content(path: Path | None) -> str:
    try:
        return read_file(path).decode("ascii") if path else ""
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise BadRequest(f"{path} is not in PEM form") from None


# --- the network config ---


def define(registry: Registry, prefix: str, network: Network) -> Overlay:
    """Write the network config if there is none; return the one that holds.

    Errors: BadRecord if it would be invalid, Conflict if another one is there: it stays.
    """
    key = config_key(prefix)
    entries, _ = registry.read(KeyRange(key))
    if not entries:
        text = network.text()
        if registry.put_if(key, text, 0) is not None:
            return read_config(text)
        entries, _ = registry.read(KeyRange(key))  # another host was faster
    there = read_config(entries[0].value or b"")
    asked = (network.network, network.subnet_len, network.backend)
    found = (there.network, there.subnet_len, there.backend)
    if any(wish not in (None, fact) for wish, fact in zip(asked, found, strict=True)):
        raise Conflict(
            f"the network config in etcd at {key} is already: {describe(there)}; it is left as it "
            "is: leave out --network, --subnet-len and --backend to use it, or choose another "
            "--etcd-prefix"
        )
    return there


def describe(overlay: Overlay) -> str:
    """Return a network config in words."""
    return (
        f"network {overlay.network}, a /{overlay.subnet_len} for each host, backend "
        f"{overlay.backend}"
    )
