"""Networks that only name the driver, and which addresses their containers have."""

from __future__ import annotations

import json
import re
import sys
from ipaddress import IPv4Network
from typing import Any

from tests.bed import Host, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import SERVICES, address, enter, in_lease, inspect

STACK = (
    SERVICES
    + """\
    container_name: stack_web
  client:
    image: box
    container_name: stack_client
    command: sleep infinity
networks:
  default:
    driver: flannel
"""
)


def create(host: Host, name: str, *options: str) -> IPv4Network:
    """Make a network with nothing but the driver's name; give the subnet Docker chose."""
    host.docker("network", "create", "-d", "flannel", *options, name)
    return IPv4Network(inspect(host, "network", name)["IPAM"]["Config"][0]["Subnet"])


def ps(host: Host) -> list[dict[str, Any]]:
    command = (sys.executable, "-m", "driver", "ps", "--format", "json")
    found: list[dict[str, Any]] = json.loads(host.run(*command, cwd=PROJECT).stdout)
    return found


def lease_ip(host: Host, name: str, net: str = "app") -> str:
    """Return a container's lease address, as `docker flannel ps` shows it."""
    of = inspect(host, "container", name)["NetworkSettings"]["Networks"][net]["EndpointID"]
    [row] = [row for row in ps(host) if row["endpoint"] == of]
    assert (row["name"], row["network_name"]) == (name, net)
    return str(row["lease_address"]).partition("/")[0]


def sources(host: Host, name: str, *targets: str) -> list[str]:
    """Return the sources of a container's packets to some targets."""
    into = enter(host, name)
    found = []
    for target in targets:
        shown = host.run(*into, "ip", "-o", "route", "get", target).stdout
        found.append(re.findall(r" src (\S+)", shown)[0])
    return found


def has_both(host: Host, name: str, net: str = "app") -> str:
    """Return a container's lease address if it has that and Docker's; "" before it has."""
    ip, lease = address(host, name, net), lease_ip(host, name, net)
    assert in_lease(lease)
    shown = host.run(*enter(host, name), "ip", "-o", "-4", "addr").stdout
    if not (f" {ip}/" in shown and f" {lease}/" in shown):
        return ""
    return lease if sources(host, name, "192.0.2.1", "10.2.99.9") == [ip, lease] else ""


def settled(host: Host, name: str, net: str = "app") -> str:
    """Wait until a container has its lease address, and give it."""
    return wait_for(lambda: has_both(host, name, net), f"the lease address of {name}")
