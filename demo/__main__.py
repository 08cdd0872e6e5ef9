"""Shows what the driver does: three hosts, one etcd, a compose stack on each, one flat network.

Each host is a set of namespaces with its own Docker. Nothing is left when the demo ends, even if it
is interrupted.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from functools import partial
from pathlib import Path

from tests.bed import Bed, Host, Node, wait_for

COMPOSE = """\
version: "3.5"
services:
  web:
    image: box
    container_name: web
    command: sh -c "hostname > /www/index.html; exec httpd -f -p 80 -h /www"
    hostname: web-on-{host}
    ports: ["8080:80"]
  db:
    image: box
    container_name: db
    command: sleep infinity
networks:
  default:
    driver: flannel
    ipam: {{driver: flannel}}
"""


def say(text: str) -> None:
    """Print what comes next."""
    print(f"\n{text}", flush=True)


def show(node: Node, words: str) -> str:
    """Run a command on a node, print both it and its output, and return the output."""
    print(f"  {node.name}$ {words}", flush=True)
    argv = shlex.split(words)
    if argv[0] == "docker" and isinstance(node, Host):
        output = node.docker(*argv[1:]).stdout
    elif argv[0] == "docker-flannel":
        output = node.run(sys.executable, "-m", "driver", *argv[1:], cwd=Path.cwd()).stdout
    else:
        output = node.run(*argv, env={"ETCDCTL_API": "3"}).stdout
    for line in output.rstrip().splitlines():
        print(f"    {line}", flush=True)
    return output


def address(host: Host, container: str) -> str:
    """Return a container's address, as Docker knows it."""
    found = json.loads(host.docker("inspect", container).stdout)
    networks = found[0]["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


def main() -> None:
    """Run the demo."""
    began = time.monotonic()
    say("Three hosts on one LAN, each with its own Docker, and a machine for etcd.")
    with Bed() as bed:
        store = bed.client("etcd")
        url = start_etcd(store)
        hosts = [start(bed.host(f"host{n}"), url) for n in (1, 2, 3)]
        one_network(hosts[0])
        stacks(hosts)
        across(hosts)
        say("The leases in etcd, in flanneld's format:")
        show(store, f"etcdctl --endpoints {url} get --prefix /coreos.com/network/subnets/")
        say("The plugin's status on the first host: lease, peers, blocks, addresses, ports.")
        check(hosts[0], show(hosts[0], "docker-flannel status"))
        clean(hosts)
    print(f"\nDone in {time.monotonic() - began:.0f} s; nothing is left on this machine.")


def start_etcd(store: Node) -> str:
    """Start etcd, write the network config, and return etcd's URL."""
    url, local = f"http://{store.address}:2379", "http://127.0.0.1:2380"
    words = [
        "--listen-client-urls http://0.0.0.0:2379",
        f"--advertise-client-urls {url}",
        f"--listen-peer-urls {local} --initial-advertise-peer-urls {local}",
        f"--initial-cluster default={local} --data-dir {store.folder}/data",
    ]
    store.popen("etcd", *" ".join(words).split(), log_name="etcd")
    wait_for(lambda: store.reaches(f"{url}/health"), "etcd")
    say("One key in etcd defines the network of all hosts; `docker-flannel init` writes it, too.")
    config = {"Network": "10.2.0.0/16", "SubnetLen": 21, "Backend": {"Type": "vxlan"}}
    show(store, f"etcdctl put /coreos.com/network/config '{json.dumps(config)}'")
    return url


def start(host: Host, url: str) -> Host:
    """Start the plugin and Docker on a host."""
    host.start_plugin({"FLANNELD_ETCD_ENDPOINTS": url})
    host.start_dockerd()
    host.load_image()
    return host


def one_network(host: Host) -> None:
    """Create a network by hand and ping in it."""
    say("A network with driver flannel: its subnet is a block of the host's flannel lease.")
    show(host, "docker network create -d flannel --ipam-driver flannel app")
    show(host, "docker run -d --name one --network app box sleep infinity")
    show(host, "docker run -d --name two --network app box sleep infinity")
    say("Containers on one host find each other by name.")
    show(host, "docker exec one ping -c 2 two")


def stacks(hosts: list[Host]) -> None:
    """Start the same compose stack on each host."""
    say("The same compose stack on each host; for the network it only names the driver flannel.")
    text = COMPOSE.format(host="host1")
    print("".join(f"    {line}\n" for line in text.splitlines()), end="")
    for host in hosts:
        folder = host.folder / "stack"
        folder.mkdir()
        (folder / "docker-compose.yml").write_text(COMPOSE.format(host=host.name))
        print(f"  {host.name}$ docker-compose up -d", flush=True)
        host.compose("up", "-d", cwd=folder)


def across(hosts: list[Host]) -> None:
    """Reach containers on other hosts by address and by published port."""
    say("Containers reach those on other hosts by address, without NAT.")
    for here, there in zip(hosts, [*hosts[1:], hosts[0]], strict=True):
        far = address(there, "web")
        wait_for(partial(pings, here, far), f"an answer from {far}")
        show(here, f"docker exec db ping -c 1 {far}")
        show(here, f"docker exec db wget -q -O - http://{far}/")
    say("A published port answers on its own host and from another one.")
    show(hosts[1], "curl -s http://127.0.0.1:8080/")
    show(hosts[0], f"curl -s http://{hosts[1].address}:8080/")


def pings(host: Host, target: str) -> bool:
    """Whether a target answers container db."""
    return host.docker("exec", "db", "ping", "-c", "1", "-w", "2", target, check=False).ok


def check(host: Host, status: str) -> None:
    """Check that the plugin's status shows the containers' addresses."""
    for container in ("one", "web"):
        if address(host, container) not in status:
            raise SystemExit(f"{container} has no address from the lease: this is a bug")


def clean(hosts: list[Host]) -> None:
    """Remove everything as a user would."""
    say("Everything is removed.")
    for host in hosts:
        print(f"  {host.name}$ docker-compose down", flush=True)
        host.compose("down", cwd=host.folder / "stack")
    show(hosts[0], "docker rm -f one two")
    show(hosts[0], "docker network rm app")


if __name__ == "__main__":
    main()
