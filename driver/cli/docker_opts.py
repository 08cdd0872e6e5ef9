"""Show dockerd's settings for this host's lease.

There are two ways without the driver's networks: Docker cuts its own networks' subnets from the
lease, or all containers are on docker0, as with flanneld.
"""

from __future__ import annotations

import json
from argparse import Namespace
from ipaddress import IPv4Network
from typing import Any

from driver.cli import client
from driver.cli.program import Program
from driver.errors import Unavailable
from driver.flannel.docker_options import options
from driver.ipam import default_prefix

SETTINGS = ("--socket",)
BIP = "172.17.0.1/16"  # Docker's own choice when it has no other pools


def run(program: Program, _: Namespace) -> None:
    """Ask the plugin for the lease and print the settings."""
    print(render(client.ask(program.socket, "GET", "/status")), end="")


def render(status: dict[str, Any]) -> str:
    """Return both ways as text, from the plugin's status document.

    Errors: Unavailable without a lease.
    """
    lease = status["lease"]
    if lease is None:
        raise Unavailable(
            f"this host has no flannel lease yet ({status['phase']}); `docker-flannel status` says "
            "what it waits for"
        )
    subnet = IPv4Network(lease["subnet"])
    pools = [{"base": str(subnet), "size": default_prefix(subnet)}]
    foreign = lease["source"] == "subnet-file"
    classic = options(subnet, lease["mtu"], ipmasq=None if foreign else False)
    return (
        "# daemon.json, for Docker to cut the subnets of all its local networks from the lease;\n"
        "# bip keeps docker0 out of it\n"
        f"{json.dumps({'bip': BIP, 'default-address-pools': pools}, indent=2)}\n\n"
        "# or options of dockerd, for all containers on docker0 and no other networks\n"
        f"{' '.join(classic.values())}\n"
        + ("# and --ip-masq=false where flanneld has --ip-masq\n" if foreign else "")
        + "\n# Both hold for this lease only: when it changes, so must they.\n"
    )
