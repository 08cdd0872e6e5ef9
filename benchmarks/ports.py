"""What published ports cost: with 10 and with 5,000, and in `docker run` against Docker's bridge.

`python -m benchmarks.ports [ROUNDS]` first measures in process, on its own host for each number of
ports: one port more and one less, the start of a plugin with all of them, a pass without drift, and
the first packet of a flow. Then it runs ROUNDS (default 20) containers with 0, 1, 10 and 50 ports
on each driver, and without network or ports, alternating. Only ratios within one run count.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.__main__ import table
from benchmarks.node import resident
from driver.api.body import Body
from driver.config import Config
from driver.core.reconciler import Reconciler
from driver.handlers import CALLS
from driver.host.links import Links
from driver.service import loading
from driver.wiring import build
from tests.bed import Bed, Host

SIZES = (10, 5000)
EACH = 50  # ports of a container
ONES = 101
FLOWS = 20000
RUNS = 5
NETWORK, LATER = "a" * 64, "b" * 64
HOST = "192.0.2.1"
ME = (sys.executable, "-m", "benchmarks.ports")
NUMBERS = (0, 1, 10, 50)


def main() -> None:
    """Run all, or inside a host one part."""
    if sys.argv[1:2] == ["fill"]:
        fill(int(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["start"]:
        start(Path(sys.argv[3]))
    elif sys.argv[1:2] == ["packets"]:
        packets(int(sys.argv[2]))
    else:
        rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
        for size in SIZES:
            with Bed() as bed:
                in_process(bed, size)
        lives(rounds)


def in_process(bed: Bed, size: int) -> None:
    """Measure one number of ports."""
    host = bed.host("host")
    print(f"{size} ports", flush=True)
    for part in ("fill", "start", "packets"):
        words = (*ME, part, str(size), str(host.state_dir))
        shown = host.run(*words, cwd=Path.cwd(), limit_s=300)
        print(shown.stdout, end="", flush=True)
    rules = json.loads(host.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    count = sum("rule" in entry for entry in rules)
    print(f"  {'rules in the whole nft ruleset':44} {count:9}", flush=True)


def plugin(state: Path) -> Reconciler:
    """Start the plugin in this process, without its socket."""
    return build(Config.read({"--state-dir": str(state), "--lease": "standalone"}, {}))


def call(core: Reconciler, method: str, **body: Any) -> dict[str, Any]:
    """Call the plugin as Docker does."""
    return CALLS[method](core, Body.decode(json.dumps(body).encode()))


def binding(number: int) -> dict[str, Any]:
    """Return a binding of a port to the same host port, in dockerd's form."""
    return {"Proto": 17, "Port": number, "HostIP": "", "HostPort": number, "HostPortEnd": number}


def publish(core: Reconciler, endpoint: str, *numbers: int) -> None:
    """Publish a container's ports."""
    options = {"com.docker.network.portmap": [binding(number) for number in numbers]}
    program = "NetworkDriver.ProgramExternalConnectivity"
    call(core, program, NetworkID=NETWORK, EndpointID=endpoint, Options=options)


def join(core: Reconciler, pool: str, endpoint: str) -> None:
    """Make the calls of a container's start up to where ports are published."""
    address = call(core, "IpamDriver.RequestAddress", PoolID=pool, Address="")["Address"]
    ids = {"NetworkID": NETWORK, "EndpointID": endpoint}
    call(core, "NetworkDriver.CreateEndpoint", **ids, Interface={"Address": address})


def fill(size: int, state: Path) -> None:
    """Publish a number of ports, then repeatedly one more and one less."""
    core = plugin(state)
    asked = {"Pool": "", "Options": {"flannel.size": "/24"}}
    reply = call(core, "IpamDriver.RequestPool", AddressSpace="flannel", **asked)
    pool = reply["PoolID"]
    kind = {"RequestAddressType": "com.docker.network.gateway"}
    gateway = call(core, "IpamDriver.RequestAddress", PoolID=pool, Address="", Options=kind)
    data = {"AddressSpace": "flannel", "Gateway": gateway["Address"], "Pool": reply["Pool"]}
    call(core, "NetworkDriver.CreateNetwork", NetworkID=NETWORK, IPv4Data=[data])
    for first in range(0, size, EACH):
        endpoint = f"{first:012x}".ljust(64, "0")
        join(core, pool, endpoint)
        publish(core, endpoint, *range(10000 + first, 10000 + min(first + EACH, size)))
    join(core, pool, LATER)
    more, less = list[float](), list[float]()
    for _ in range(ONES):
        more.append(timed(lambda: publish(core, LATER, 9999)))
        less.append(timed(lambda: publish(core, LATER)))
    show("one port more, ms", more)
    show("one port less, ms", less)
    print(f"  {'memory of the process, MB':44} {resident(os.getpid()):9.0f}")


def start(state: Path) -> None:
    """Start the plugin on the state of `fill`: read it, bind the ports, write the firewall."""
    Links.prepare()  # loading Python modules is not measured
    began = time.perf_counter()
    with loading():
        core = plugin(state)
    show("start with these ports, ms", [(time.perf_counter() - began) * 1000])
    times = []
    for _ in range(RUNS):
        core.dataplane.observe()
        times.append(timed(core.attempt))
    show("a pass that finds nothing to do, ms", times)


def packets(size: int) -> None:
    """Send the first packets of many flows to the last port and to an unpublished one."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for name, number in (("published", 9999 + size), ("unpublished", 9000)):
            times = []
            for run in range(RUNS):
                made = [datagram(run, flow, number) for flow in range(FLOWS)]
                began = time.perf_counter()
                for packet in made:
                    sock.sendto(packet, (HOST, 0))
                times.append((time.perf_counter() - began) * 1e6 / FLOWS)
            show(f"first packet of a flow, {name}, us", times)


def datagram(run: int, flow: int, port: int) -> bytes:
    """Return an empty UDP packet; each flow has its own source."""
    source = bytes([198, 18 + run % 2, flow >> 8, flow & 255])
    udp = struct.pack(">HHHH", 1024 + run, port, 8, 0)
    address = socket.inet_aton(HOST)
    return struct.pack(">BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + source + address + udp


def timed(act: Callable[[], object]) -> float:
    """Return the milliseconds that a function takes."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def show(name: str, times: list[float]) -> None:
    """Print the median; of several times also the shortest and longest."""
    more = f"   {min(times):9.2f} to {max(times):9.2f}" if len(times) > 1 else ""
    print(f"  {name:44} {statistics.median(times):9.2f}{more}", flush=True)


def lives(rounds: int) -> None:
    """Run containers with ports on both drivers, alternating."""
    with Bed() as bed:
        host = bed.host("host")
        host.start_plugin()
        host.start_dockerd()
        host.load_image()
        host.docker("network", "create", "plain")
        host.docker("network", "create", "-d", "flannel", "--ipam-driver", "flannel", "app")
        walls = {number: life(host, number, rounds) for number in NUMBERS}
    print(f"wall time of `docker run --rm`, ms, {rounds} containers each, alternating")
    for number, times in walls.items():
        print(f"{number} ports")
        table(times.items(), compare="bridge")


def life(host: Host, number: int, rounds: int) -> dict[str, list[float]]:
    """Run all kinds in turn; a first round is not measured."""
    ports = ("-p", f"8000-{7999 + number}:8000-{7999 + number}") if number else ()
    asked = {"none": ("none",), "bridge": ("plain", *ports), "flannel": ("app", *ports)}
    walls: dict[str, list[float]] = {kind: [] for kind in asked}
    for turn in range(rounds + 1):
        for kind, options in asked.items():
            words = ("run", "--rm", "--network", *options, "box", "true")
            took = timed(partial(host.docker, *words))
            if turn:
                walls[kind].append(took)
        print(f"\r{number} ports: {turn} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return walls


if __name__ == "__main__":
    main()
