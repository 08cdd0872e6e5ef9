"""Write flannel's network config if etcd has none."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from ipaddress import IPv4Network

from driver.cli.program import Program
from driver.errors import BadRequest, Conflict
from driver.flannel.etcd.registry import Registry
from driver.flannel.network_config import read_config
from driver.flannel.records import config_key
from driver.model.records import Overlay

SETTINGS = (
    *("--etcd-endpoints", "--etcd-prefix", "--etcd-username", "--network"),
    *("--etcd-cafile", "--etcd-certfile", "--etcd-keyfile"),
)


def arguments(parser: ArgumentParser) -> None:
    """Add the rest of the config."""
    length = "--subnet-len"  # also a setting, but its default is for standalone hosts only
    words = "prefix length of each host's lease"
    parser.add_argument(length, dest=length, metavar="VALUE", help=words)
    words = "how packets reach the other hosts (default %(default)s)"
    parser.add_argument("--backend", choices=("vxlan", "host-gw"), default="vxlan", help=words)


def run(program: Program, args: Namespace) -> None:
    """Write the config and print it."""
    config = program.config
    if config.etcd is None:
        raise BadRequest("init needs --etcd-endpoints")
    overlay = init_config(
        program.registry(config.etcd),
        config.etcd.prefix,
        config.network,
        config.subnet_len if vars(args)["--subnet-len"] else None,
        args.backend,
    )
    print(
        f"the flannel network is {overlay.network}, a /{overlay.subnet_len} for each host, "
        f"backend {overlay.backend}"
    )


def init_config(
    registry: Registry,
    prefix: str,
    network: IPv4Network,
    subnet_len: int | None = None,
    backend: str = "vxlan",
    **options: int | bool,
) -> Overlay:
    """Write a network config if there is none; return it.

    `options`: the backend's, with flannel's names.
    Errors: BadRecord if the config would be invalid, Conflict if there is one already.
    """
    fields: dict[str, object] = {"Network": str(network)}
    if subnet_len is not None:
        fields["SubnetLen"] = subnet_len
    text = json.dumps({**fields, "Backend": {"Type": backend, **options}})
    overlay = read_config(text)
    key = config_key(prefix)
    if registry.put_if(key, text, 0) is None:
        raise Conflict(f"there is a network config in etcd at {key} already: it is left as it is")
    return overlay
