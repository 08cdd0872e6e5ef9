"""Set up a flannel network, with this host as its first one."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from driver.cli.machine import described, given, machine_of
from driver.cli.program import Program
from driver.errors import BadRequest
from driver.flannel.etcd.settings import DEFAULT_PORT, DEFAULT_PREFIX
from driver.flannel.network_config import BACKENDS
from driver.setup.entering import PREFIX
from driver.setup.first_host import BACKEND, USUAL_LENGTH, Network, describe, init

ETCD = (
    *("--etcd-endpoints", "--etcd-username"),
    *("--etcd-cafile", "--etcd-certfile", "--etcd-keyfile"),
)
HOST = ("--iface", "--public-ip")
SETTINGS = (*ETCD, "--etcd-prefix", *HOST)


def arguments(parser: ArgumentParser) -> None:
    """Add the network config. Network and length are settings, too, but of standalone hosts."""
    words = "the network that all hosts share (default DOCKER_FLANNEL_NETWORK, else 10.2.0.0/16)"
    parser.add_argument("--network", metavar="PREFIX", help=words)
    words = f"prefix length of each host's part of it (default {USUAL_LENGTH})"
    parser.add_argument("--subnet-len", type=int, metavar="LENGTH", help=words)
    words = f"how packets get to other hosts (default {BACKEND})"
    parser.add_argument("--backend", choices=BACKENDS, help=words)


def run(program: Program, args: Namespace) -> None:
    """Set up the network; print it, the lease, and how other hosts join."""
    config, machine = program.config, machine_of(program)
    asked = given(args, *ETCD)
    if asked and config.etcd is None:
        raise BadRequest(f"{', '.join(asked)} need --etcd-endpoints")
    prefix = given(args, "--etcd-prefix").get(PREFIX) or machine.in_force().get(PREFIX)
    network = Network.read(config.network, args.network, args.subnet_len, args.backend)
    with machine.alone():
        overlay, token, status = init(
            machine, config.etcd, prefix or DEFAULT_PREFIX, network, given(args, *HOST),
            asked=bool(asked),
        )  # fmt: skip
    print(
        f"the flannel network is set up: {describe(overlay)}",
        *described(status),
        "",
        "on each other host, run this; it holds a secret: whoever has it can join",
        f"docker-flannel join {token.encode()}",
        sep="\n",
    )
    ports = [f"UDP port {overlay.port}"] * (overlay.backend == "vxlan")
    ports += [f"TCP port {DEFAULT_PORT} (etcd)"] * machine.etcd.ours
    if ports:
        print(f"\na firewall on this host must let the other hosts in: {', '.join(ports)}")
