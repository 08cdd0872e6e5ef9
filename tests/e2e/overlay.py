"""Hosts with one etcd, and tools that run in a container's network namespace.

As a program: `python -m tests.e2e.overlay TOOL ...`; TOOLS lists them.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import socket
import struct
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.bed import Bed, Host, Node, Process, Result, wait_for
from tests.e2e.helpers import asked, echoes, enter, inside, network, web

PROJECT = Path(__file__).resolve().parents[2]
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
        """Give all that a host has of peers: routes, neighbours, FDB entries."""
        routes = host.run("ip", "route", "show", "proto", "91").stdout.splitlines(keepends=True)
        found = [line for line in routes if not line.startswith("unreachable ")]
        neighbours = ("ip", "neigh", "show", "dev", self.device, "nud", "permanent")
        for command in (neighbours, ("bridge", "fdb", "show", "dev", self.device)):
            found.append(host.run(*command, check=False).stdout)  # the device may be gone
        return "".join(found)


@contextmanager
def empty_world(config: str) -> Iterator[World]:
    """Give an etcd with a network config, and no host yet."""
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
    """Give three hosts whose containers reach each other."""
    with empty_world(config) as made:
        for name in ("h1", "h2", "h3"):
            host = made.host(name)
            made.start_plugin(host)
            made.furnish(host)
        made.all_reach_all()
        yield made


def own(host: Host) -> str:
    """Name a host's container."""
    return f"w-{host.name}"


def status(host: Host) -> dict[str, Any]:
    """Give what `docker-flannel status` says."""
    command = (sys.executable, "-m", "driver", "status", "--format", "json")
    found: dict[str, Any] = json.loads(host.run(*command, cwd=PROJECT).stdout)
    return found


def lease(host: Host) -> dict[str, Any]:
    """Give the host's lease as `status` shows it, {} without one."""
    return status(host)["lease"] or {}


def mac(host: Host, device: str) -> str:
    """Give a link's MAC, "" without the link."""
    words = host.run("ip", "-o", "link", "show", device, check=False).stdout.split()
    return words[words.index("link/ether") + 1] if "link/ether" in words else ""


def answers(host: Host, container: str, target: str) -> bool:
    """Whether a target answers a ping within 1 s: where no answer is what is hoped for."""
    ping = ("ping", "-c", "1", "-W", "1", "-w", "1", target)
    return inside(host, container, *ping, check=False).ok


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
    return (*into, sys.executable, "-m", "tests.e2e.overlay")


# --- tools ---


def digest(port: str) -> None:
    """Answer a TCP stream and each UDP datagram with its SHA-256."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.create_server(("", int(port))) as tcp:
        udp.bind(("", int(port)))
        threading.Thread(target=_datagrams, args=(udp,), daemon=True).start()
        _say("ready")
        while True:
            client, _ = tcp.accept()
            with client:
                summed = hashlib.sha256()
                while data := client.recv(1 << 20):
                    summed.update(data)
                client.sendall(summed.hexdigest().encode())


def _datagrams(udp: socket.socket) -> None:
    while True:
        data, peer = udp.recvfrom(65535)
        udp.sendto(hashlib.sha256(data).hexdigest().encode(), peer)


def stream(host: str, port: str, mebibytes: str) -> None:
    """Send over TCP to a digest server; print whether its answer is right, and the rate."""
    block, summed, begin = bytes(range(256)) * 4096, hashlib.sha256(), time.monotonic()
    with socket.create_connection((host, int(port)), 20) as sock:
        for number in range(int(mebibytes)):
            data = number.to_bytes(4, "big") + block[4:]
            summed.update(data)
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = sock.recv(64, socket.MSG_WAITALL).decode()
    rate = int(mebibytes) / (time.monotonic() - begin)
    _say("whole" if answer == summed.hexdigest() else "broken", f"{rate:.0f} MiB/s")


def datagram(host: str, port: str, size: str, whole: str = "") -> None:
    """Send to a digest server, with `whole` not in fragments; print what became of it."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        if whole:
            sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: IP_PMTUDISC_DO
        data = bytes(number % 251 for number in range(int(size)))
        try:
            sock.connect((host, int(port)))
            sock.send(data)
            answer = sock.recv(64).decode()
        except OSError as error:
            answer = str(error)
    _say("whole" if answer == hashlib.sha256(data).hexdigest() else answer)


def capture(device: str) -> None:
    """Print the IPv4 packets on a device: how they go, their VNI, source and destination."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.bind((device, 0))
        _say("ready")
        while True:
            frame = sock.recv(65535)
            if frame[12:14] == b"\x08\x00":
                _packet(frame[14:])


def _packet(packet: bytes) -> None:
    data = packet[4 * (packet[0] & 15) :]
    if packet[9] == socket.IPPROTO_UDP and struct.unpack_from("!H", data, 2) == (8472,):
        inner = data[8 + 8 + 14 :]
        _say("vxlan", int.from_bytes(data[12:15], "big"), *_ends(packet), *_ends(inner))
    else:
        _say("plain", *_ends(packet))


def _ends(packet: bytes) -> tuple[str, str]:
    return socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])


def newcomer(url: str, *address: str) -> None:
    """Wait for a new lease; print how many seconds later its host, or an address, is reached."""
    known = _leases(url)
    _say("ready")
    while not (new := _leases(url) - known):
        time.sleep(0.01)
    begin, target = time.monotonic(), (*address, new.pop())[0]
    while True:
        with suppress(OSError), socket.socket() as sock:
            sock.settimeout(0.1)
            if sock.connect_ex((target, TCP)) in (0, errno.ECONNREFUSED):  # an answer, too
                return _say(f"{time.monotonic() - begin:.3f}")
        time.sleep(0.01)


def _leases(url: str) -> set[str]:
    begin, end = (base64.b64encode(f"{LEASES[:-1]}{c}".encode()).decode() for c in "/0")
    body = json.dumps({"key": begin, "range_end": end, "keys_only": True}).encode()
    with urllib.request.urlopen(f"{url}/v3/kv/range", body, 5) as answer:  # noqa: S310 - http
        found = json.load(answer).get("kvs", [])
    return {base64.b64decode(kv["key"]).decode().rpartition("/")[2].split("-")[0] for kv in found}


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


TOOLS: dict[str, Callable[..., None]] = {
    tool.__name__: tool for tool in (digest, stream, datagram, capture, newcomer)
}

if __name__ == "__main__":
    TOOLS[sys.argv[1]](*sys.argv[2:])
