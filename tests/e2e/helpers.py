"""What several end-to-end tests ask of Docker."""

from __future__ import annotations

import json
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from tests.bed import Host, Node, Process, Result, Snapshot, snapshot, wait_for
from tests.bed.rootfs import PROJECT

ECHO = str(Path(__file__).with_name("echo.py"))

LEASE = IPv4Network("10.2.0.0/20")
SERVICES = """\
version: "3.5"
services:
  web:
    image: box
    command: httpd -f -p 80 -h /www
    ports: ["8080:80"]
"""  # a compose file goes on with more of them, and with networks
FLANNEL = ("-d", "flannel", "--ipam-driver", "flannel")


def network(host: Host, name: str, *options: str) -> IPv4Network:
    """Make a flannel network and give its block."""
    host.docker("network", "create", *FLANNEL, *options, name)
    config = inspect(host, "network", name)["IPAM"]["Config"]
    return IPv4Network(config[0]["Subnet"])


def container(
    host: Host, name: str, network: str, *options: str, run: str = "sleep 1000000"
) -> str:
    """Start a container and give its address on the network."""
    host.docker("run", "-d", "--name", name, "--network", network, *options, "box", *run.split())
    return address(host, name, network)


def web(host: Host, name: str, network: str, *options: str) -> str:
    """Start a container that answers HTTP on port 80 with its own name; give its address."""
    script = f"echo {name} > /www/index.html; exec httpd -f -p 80 -h /www"
    host.docker(
        "run", "-d", "--name", name, "--network", network, *options, "box", "sh", "-c", script
    )
    return address(host, name, network)


def address(host: Host, container: str, network: str) -> str:
    """Ask Docker for a container's address on a network."""
    networks = inspect(host, "container", container)["NetworkSettings"]["Networks"]
    return str(networks[network]["IPAddress"])


def inspect(host: Host, kind: str, name: str) -> dict[str, Any]:
    """Give what `docker inspect` says."""
    found: dict[str, Any] = json.loads(host.docker(kind, "inspect", name).stdout)[0]
    return found


def inside(host: Host, container: str, *argv: str, check: bool = True) -> Result:
    """Run a command in a container."""
    return host.docker("exec", container, *argv, check=check)


def pings(host: Host, container: str, target: str) -> bool:
    """Whether a container gets an answer from a target within some seconds."""
    return inside(host, container, "ping", "-c", "1", "-w", "5", target, check=False).ok


def answers(host: Host, container: str, target: str) -> bool:
    """Whether a target answers a ping within 1 s: where no answer is what is hoped for."""
    ping = ("ping", "-c", "1", "-W", "1", "-w", "1", target)
    return inside(host, container, *ping, check=False).ok


def gets(host: Host, container: str, url: str) -> str:
    """Fetch an URL from inside a container; "" when nothing comes within some seconds."""
    ask = ("timeout", "5", "wget", "-q", "-O", "-", url)
    result = inside(host, container, *ask, check=False)
    return result.stdout.strip() if result.ok else ""


def in_lease(text: str) -> bool:
    """Whether an address is of the lease."""
    return IPv4Address(text) in LEASE


def echoes(host: Host, container: str, kind: str, port: int) -> Process:
    """Have a container answer "tcp" or "udp" clients with the address it sees of them."""
    return host.popen(*enter(host, container), sys.executable, ECHO, "serve", kind, str(port))


def asked(node: Node, kind: str, target: str, port: int, limit_s: int = 5, within: str = "") -> str:
    """Ask such a server, from a node or from a container of it; "" without an answer."""
    prefix = enter(node, within) if within and isinstance(node, Host) else ()
    command = (*prefix, sys.executable, ECHO, "ask", kind, target, str(port), str(limit_s))
    return node.run(*command, check=False).stdout


def enter(host: Host, container: str) -> tuple[str, ...]:
    """Give the words that run a command of the host in a container's network namespace."""
    return ("nsenter", "-n", "-t", str(inspect(host, "container", container)["State"]["Pid"]))


def status(host: Host) -> dict[str, Any]:
    """Give what `docker-flannel status` says."""
    command = (sys.executable, "-m", "driver", "status", "--format", "json")
    found: dict[str, Any] = json.loads(host.run(*command, cwd=PROJECT).stdout)
    return found


def docker_major(host: Host) -> int:
    """Give the first number of the host's Docker: 20, 26, 28."""
    told = host.docker("version", "--format", "{{.Server.Version}}").stdout
    return int(told.partition(".")[0])


def tidy(host: Host) -> None:
    """Remove all containers, and the networks that are then unused."""
    left = host.docker("ps", "-aq").stdout.split()
    if left:
        host.docker("rm", "-f", *left)
    host.docker("network", "prune", "-f")


def baseline(host: Host) -> Snapshot:
    """Take a snapshot once the last veths are gone and the gate is where Docker wants it."""
    wait_for(lambda: " flc" not in host.run("ip", "link").stdout, "the last veths to go")
    wait_for(lambda: _gate_has_moved(host), "the gate to move to Docker's chain", 20)
    return snapshot(host)


def _gate_has_moved(host: Host) -> bool:
    """Whether the gate, made while dockerd was starting, is in DOCKER-USER; news moves it."""
    lines = host.run("iptables-save", "-t", "filter", check=False).stdout.splitlines()
    rules = [line for line in lines if line.startswith("-A FORWARD ")]
    return not ("-A FORWARD -j DOCKER-USER" in rules and any("DKFLANNEL" in r for r in rules))
