"""What several end-to-end tests ask of Docker."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from tests.bed import Host, Node, Process, Result, unixhttp, wait_for
from tests.bed.host import PLUGIN_SOCKET
from tests.bed.rootfs import PROJECT

COMMAND = Path(sys.prefix, "bin", "docker-flannel")
SERVE = (sys.executable, "-m", "driver", "serve")
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
# of the firewall; what a test marked `each_backend` runs on. Docker uses the same iptables.
BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
COUNTED = re.compile(r"(\d+) packets transmitted, (\d+) received")


def add_cli_plugin(host: Host) -> None:
    """Make the command a plugin of the host's docker command; it may be one already."""
    folder = Path(host.docker_env["DOCKER_CONFIG"], "cli-plugins")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "docker-flannel").unlink(missing_ok=True)
    (folder / "docker-flannel").symlink_to(COMMAND)


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
    """Return what `docker inspect` says."""
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
    """Return the words that run a command of the host in a container's network namespace."""
    return ("nsenter", "-n", "-t", str(inspect(host, "container", container)["State"]["Pid"]))


def status(host: Host) -> dict[str, Any]:
    """Return what `docker-flannel status` says."""
    command = (sys.executable, "-m", "driver", "status", "--format", "json")
    found: dict[str, Any] = json.loads(host.run(*command, cwd=PROJECT).stdout)
    return found


def docker_major(host: Host) -> int:
    """Return the first number of the host's Docker: 20, 26, 28."""
    told = host.docker("version", "--format", "{{.Server.Version}}").stdout
    return int(told.partition(".")[0])


def page(node: Node, port: int, address: str) -> str:
    """What a port answers by HTTP; "" for nothing."""
    url = f"http://{address}:{port}/"
    return node.fetch(url).strip() if node.reaches(url, 3) else ""


def ports(host: Host) -> list[dict[str, Any]]:
    """What the plugin has published."""
    listed = host.run(sys.executable, "-m", "driver", "ports", "--format", "json", cwd=PROJECT)
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


@contextmanager
def counted(host: Host, name: str, target: str) -> Iterator[None]:
    """Ping ten times a second from a container; no answer may be missing in the end."""
    log_name = f"ping-{name}-{target}"
    words = (*enter(host, name), "ping", "-n", "-q", "-i", "0.1", target)
    process = host.popen(*words, log_name=log_name)
    yield
    process.signal(signal.SIGINT)
    process.wait()
    [(sent, received)] = COUNTED.findall(process.log())
    assert int(sent) > 2
    assert int(received) >= int(sent) - 1, "but for the last, which may be on its way"


def settings(backend: str) -> dict[str, str]:
    """Return the plugin's settings for a backend of the firewall."""
    firewall = backend.partition("-")[0]
    return {"DOCKER_FLANNEL_LOG_LEVEL": "debug", "DOCKER_FLANNEL_FIREWALL": firewall}


def switch_off_and_on(host: Host, visitor: Node) -> None:
    """Cut the power; the plugin starts first, and dockerd at once after it."""
    host.reboot()
    visitor.run("ip", "neigh", "flush", "all")  # the bed gives the host another network card
    env = {"DOCKER_FLANNEL_STATE_DIR": str(host.state_dir)}
    # unlike start_plugin, no Plugin.Activate, which would wake a pass before dockerd is there
    host.plugin = host.popen(*SERVE, env=env, cwd=PROJECT, log_name="plugin")
    socket = host.path(PLUGIN_SOCKET)
    wait_for(lambda: unixhttp.answers(socket, "GET", "/status"), "the plugin to answer")
    host.restart_dockerd()
