"""`docker network create -d flannel` and `driver: flannel`, with nothing else, on one host.

All of it runs on every Docker (DOCKER_ROOT); `since_28` marks what only Docker 28 and later can
do, and says what an older one does instead.
"""

from __future__ import annotations

import json
import re
import sys
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.bed import Host, Node, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import (
    address,
    container,
    docker_major,
    gets,
    in_lease,
    inspect,
    pings,
    web,
)

OVERLAY = "10.2.0.0/16"
STACK = """\
version: "3.5"
services:
  web:
    image: box
    container_name: stack_web
    command: httpd -f -p 80 -h /www
    ports: ["8080:80"]
  client:
    image: box
    container_name: stack_client
    command: sleep infinity
networks:
  default:
    driver: flannel
"""


@pytest.fixture
def since_28(running: Host) -> bool:
    """Tell whether Docker is one that can leave IPv4 to the driver."""
    return docker_major(running) >= 28


def create(host: Host, name: str, *options: str) -> IPv4Network:
    """Make a network with nothing but the driver's name; give the subnet Docker chose."""
    host.docker("network", "create", "-d", "flannel", *options, name)
    return IPv4Network(inspect(host, "network", name)["IPAM"]["Config"][0]["Subnet"])


def ps(host: Host) -> list[dict[str, Any]]:
    command = (sys.executable, "-m", "driver", "ps", "--json")
    found: list[dict[str, Any]] = json.loads(host.run(*command, cwd=PROJECT).stdout)
    return found


def lease_ip(host: Host, name: str, net: str = "app") -> str:
    """Give a container's lease address, as `docker flannel ps` shows it."""
    of = inspect(host, "container", name)["NetworkSettings"]["Networks"][net]["EndpointID"]
    [row] = [row for row in ps(host) if row["endpoint"] == of]
    return str(row["lease_address"]).partition("/")[0]


def sources(host: Host, name: str, *targets: str) -> list[str]:
    """Give the sources of a container's packets to some targets."""
    pid = inspect(host, "container", name)["State"]["Pid"]
    found = []
    for target in targets:
        get = ("nsenter", "-n", "-t", str(pid), "ip", "-o", "route", "get", target)
        found.append(re.findall(r" src (\S+)", host.run(*get).stdout)[0])
    return found


def has_both(host: Host, name: str, net: str = "app") -> bool:
    """Whether a container has Docker's address, and the lease's towards the overlay."""
    ip, lease = address(host, name, net), lease_ip(host, name, net)
    assert in_lease(lease)
    pid = inspect(host, "container", name)["State"]["Pid"]
    shown = host.run("nsenter", "-n", "-t", str(pid), "ip", "-o", "-4", "addr").stdout
    if not (f" {ip}/" in shown and f" {lease}/" in shown):
        return False
    return sources(host, name, "192.0.2.1", "10.2.99.9") == [ip, lease]


def settled(host: Host, name: str, net: str = "app") -> str:
    """Wait until a container has its lease address, and give it."""
    wait_for(lambda: has_both(host, name, net), f"the lease address of {name}")
    return lease_ip(host, name, net)


def test_names_ports_and_both_addresses(host: Host, visitor: Node) -> None:
    subnet = create(host, "app")
    assert not subnet.overlaps(IPv4Network(OVERLAY))
    one = web(host, "one", "app", "-p", "8080:80")
    container(host, "two", "app")
    assert IPv4Address(one) in subnet
    leases = {name: settled(host, name) for name in ("one", "two")}
    assert gets(host, "two", "http://one/") == "one"
    for ip in (one, leases["one"]):
        assert pings(host, "two", ip)
        assert gets(host, "two", f"http://{ip}/") == "one"
        assert host.fetch(f"http://{ip}/").strip() == "one"
    url = f"http://{host.address}:8080/"
    for asked in (visitor, host):
        wait_for(lambda asked=asked: asked.reaches(url), "the port")
        assert asked.fetch(url).strip() == "one"
    assert host.fetch("http://127.0.0.1:8080/").strip() == "one"
    assert gets(host, "two", url) == "one", "hairpin"
    assert gets(host, "one", url) == "one", "its own port"
    assert pings(host, "one", "192.0.2.1"), "the outside, masqueraded"
    assert "better is one address: --ipam-driver flannel" in host.plugin_log()
