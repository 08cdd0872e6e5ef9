"""Shows what the driver does: one host, two ways to make a network, a published port.

The host is a set of namespaces with its own Docker; when the demo ends, or is interrupted,
nothing of it is left.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.bed import Bed, Host, Node, wait_for

COMPOSE = """\
version: "3.5"
services:
  web:
    image: box
    command: httpd -f -p 80 -h /www
    ports: ["8080:80"]
  db:
    image: box
    command: sleep infinity
networks:
  default:
    driver: flannel
    ipam: {driver: flannel}
"""


def say(text: str) -> None:
    """Tell what comes, in plain words."""
    print(f"\n{text}", flush=True)


def show(node: Node, words: str) -> str:
    """Run a command on a host, show it with its output, and give the output."""
    print(f"  {node.name}$ {words}", flush=True)
    argv = words.split()
    if argv[0] == "docker" and isinstance(node, Host):
        output = node.docker(*argv[1:]).stdout
    elif argv[0] == "docker-flannel":
        output = node.run(sys.executable, "-m", "driver", *argv[1:], cwd=Path.cwd()).stdout
    else:
        output = node.run(*argv).stdout
    for line in output.rstrip().splitlines():
        print(f"    {line}", flush=True)
    return output


def address(host: Host, container: str) -> str:
    """Ask Docker for a container's address."""
    found = json.loads(host.docker("inspect", container).stdout)
    networks = found[0]["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


def main() -> None:
    """Run the demo."""
    began = time.monotonic()
    say("A host with its own Docker is started, and a second machine on the same LAN.")
    with Bed() as bed:
        host, visitor = bed.host("host"), bed.client("visitor")
        host.start_plugin()
        host.start_dockerd()
        host.load_image()
        print("  The plugin serves /run/docker/plugins/flannel.sock; Docker finds it by that name.")
        one_network(host)
        a_stack(host, visitor)
        say("Everything is removed again.")
    print(f"\nDone in {time.monotonic() - began:.0f} s; nothing of it is left on this machine.")


def one_network(host: Host) -> None:
    """Make a network by hand and ping in it."""
    say("A network on driver flannel: its addresses are a block of this host's flannel lease.")
    show(host, "docker network create -d flannel --ipam-driver flannel app")
    show(host, "docker run -d --name one --network app box sleep infinity")
    show(host, "docker run -d --name two --network app box sleep infinity")
    say("Containers find each other by name.")
    show(host, "docker exec one ping -c 2 two")


def a_stack(host: Host, visitor: Node) -> None:
    """Bring a compose stack up, reach its published port, take it down."""
    say("A compose stack of two services; all it says of the network is `driver: flannel`:")
    folder = host.folder / "stack"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(COMPOSE)
    print("".join(f"    {line}\n" for line in COMPOSE.splitlines()), end="")
    print(f"  {host.name}$ docker-compose up -d", flush=True)
    host.compose("up", "-d", cwd=folder)
    show(host, "docker exec stack_db_1 ping -c 2 web")
    say("The published port answers on the host itself, and to the other machine on the LAN.")
    wait_for(lambda: host.reaches("http://127.0.0.1:8080/"), "the web service")
    show(host, "curl -s http://127.0.0.1:8080/")
    show(visitor, f"curl -s http://{host.address}:8080/")
    say("What the plugin says of it: the lease, the blocks, the addresses, the ports.")
    status = show(host, "docker-flannel status")
    for container in ("one", "stack_web_1"):
        if address(host, container) not in status:
            raise SystemExit(f"{container} has no address of the lease: this is a defect")
    print(f"  {host.name}$ docker-compose down", flush=True)
    host.compose("down", cwd=folder)
    show(host, "docker rm -f one two")
    show(host, "docker network rm app")


if __name__ == "__main__":
    main()
