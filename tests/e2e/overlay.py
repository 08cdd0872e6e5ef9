"""Hosts with one etcd, and programs of overlay_tools in their containers' networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.bed import Bed, Host, Node, Process, Result, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import asked, echoes, enter, network, status, web

PREFIX = "/coreos.com/network"
LEASES = f"{PREFIX}/subnets/"
CONFIGS: dict[str, dict[str, Any]] = {
    "vxlan": {"Network": "10.2.0.0/16", "Backend": {"Type": "vxlan"}},
    "vni100": {
        "Network": "10.0.0.0/8",
        "SubnetLen": 20,
        "SubnetMin": "10.10.0.0",
        "SubnetMax": "10.99.0.0",
        "Backend": {"Type": "vxlan", "VNI": 100, "Port": 8472},
    },
    "direct": {"Network": "10.2.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": True}},
    "host-gw": {"Network": "10.2.0.0/16", "Backend": {"Type": "host-gw"}},
}
TCP, UDP, DIGEST = 7001, 7002, 7003  # ports of the echo and digest servers


@dataclass
class World:
    """An etcd and hosts of one overlay; on each a network `app` with a container `w-HOST`."""

    bed: Bed
    etcd: Node
    config: str
    hosts: list[Host] = field(default_factory=list)
    ips: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.etcd.address}:2379"

    @property
    def device(self) -> str:
        return f"flannel.{CONFIGS[self.config]['Backend'].get('VNI', 1)}"

    def etcdctl(self, *argv: str, check: bool = True) -> Result:
        command = ("etcdctl", "--endpoints", self.url, "--command-timeout=60s", *argv)
        return self.etcd.run(*command, env={"ETCDCTL_API": "3"}, check=check)

    def keys(self) -> list[str]:
        return self.etcdctl("get", "--prefix", "--keys-only", LEASES).stdout.split()

    def key(self, host: Host) -> str:
        return LEASES + str(lease(host)["subnet"]).replace("/", "-")

    def host(self, name: str) -> Host:
        """Add a host without the plugin."""
        host = self.bed.host(name)
        self.hosts.append(host)
        return host

    def add(self, name: str) -> Host:
        """Add a host with the plugin, Docker, the image and a lease, but without a network."""
        host = self.host(name)
        self.start_plugin(host)
        host.start_dockerd()
        host.load_image()
        wait_for(lambda: lease(host), f"the lease of {name}")
        return host

    def start_plugin(self, host: Host) -> None:
        settings = {"DOCKER_FLANNEL_LOG_LEVEL": "debug", "FLANNELD_ETCD_ENDPOINTS": self.url}
        host.start_plugin(settings)

    def furnish(self, host: Host) -> None:
        """Start Docker; populate the host."""
        host.start_dockerd()
        host.load_image()
        self.populate(host)

    def populate(self, host: Host) -> None:
        """Make the network, a web server and an echo server."""
        wait_for(lambda: lease(host), f"the lease of {host.name}")
        network(host, "app")
        self.ips[host.name] = web(host, own(host), "app")
        self.serve(host)

    def serve(self, host: Host) -> None:
        """Start the servers in the network namespace of the host's container."""
        echoes(host, own(host), "tcp", TCP)
        echoes(host, own(host), "udp", UDP)

    def all_reach_all(self, kind: str = "tcp") -> None:
        """Wait until each container gets an answer from all others; they must see who asks."""
        port = {"tcp": TCP, "udp": UDP}[kind]
        for one, other in self.pairs():
            question = partial(asked, one, kind, self.ips[other.name], port, within=own(one))
            seen = wait_for(question, f"{own(one)} to reach {own(other)}")
            assert seen == self.ips[one.name], f"{own(one)} is seen as {seen} by {own(other)}"

    def pairs(self) -> Iterator[tuple[Host, Host]]:
        for one in self.hosts:
            yield from ((one, other) for other in self.hosts if other is not one)

    def entries(self, host: Host) -> str:
        """Return all that a host has of peers: routes, neighbours, FDB entries."""
        routes = host.run("ip", "route", "show", "proto", "91").stdout.splitlines(keepends=True)
        found = [line for line in routes if not line.startswith("unreachable ")]
        neighbours = ("ip", "neigh", "show", "dev", self.device, "nud", "permanent")
        for command in (neighbours, ("bridge", "fdb", "show", "dev", self.device)):
            found.append(host.run(*command, check=False).stdout)  # the device may be gone
        return "".join(found)


@contextmanager
def empty_world(config: str) -> Iterator[World]:
    """Yield an etcd with a network config, and no host yet."""
    with Bed() as bed:
        etcd = bed.client("etcd")
        made = World(bed, etcd, config)
        urls = ("--listen-client-urls=http://0.0.0.0:2379", f"--advertise-client-urls={made.url}")
        etcd.popen("etcd", f"--data-dir={etcd.folder}/data", *urls)
        wait_for(lambda: made.etcdctl("endpoint", "health", check=False).ok, "etcd")
        made.etcdctl("put", f"{PREFIX}/config", json.dumps(CONFIGS[config]))
        yield made


@contextmanager
def world(config: str) -> Iterator[World]:
    """Yield three hosts whose containers reach each other."""
    with empty_world(config) as made:
        for name in ("h1", "h2", "h3"):
            made.populate(made.add(name))
        made.all_reach_all()
        yield made


def own(host: Host) -> str:
    """Return the name of a host's container."""
    return f"w-{host.name}"


def lease(host: Host) -> dict[str, Any]:
    """Return the host's lease as `status` shows it, {} without one."""
    return status(host)["lease"] or {}


def mac(host: Host, device: str) -> str:
    """Return a link's MAC, "" without the link."""
    words = host.run("ip", "-o", "link", "show", device, check=False).stdout.split()
    return words[words.index("link/ether") + 1] if "link/ether" in words else ""


def tool(host: Host, *argv: str, within: str = "", limit_s: float = 60) -> str:
    """Run a tool on a host or in its container's network; give what it prints."""
    command = (*_prefix(host, within), *argv)
    return host.run(*command, cwd=PROJECT, limit_s=limit_s).stdout.strip()


def started(host: Host, name: str, *argv: str, within: str = "") -> Process:
    """Start a tool that says when it is ready, and wait for that."""
    process = host.popen(*_prefix(host, within), *argv, cwd=PROJECT, log_name=name)
    wait_for(lambda: "ready" in process.log(), f"{argv[0]} to be ready")
    return process


def _prefix(host: Host, within: str) -> tuple[str, ...]:
    into = enter(host, within) if within else ()
    return (*into, sys.executable, "-m", "tests.e2e.overlay_tools")
