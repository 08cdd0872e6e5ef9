"""`docker run --rm` with this driver, with Docker's bridge and with none; our time per call.

`python -m benchmarks [ROUNDS]` runs ROUNDS (default 200) containers of each kind, alternating, on
one host with its own dockerd. Only ratios within one run count.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable

from tests.bed import Bed, Host

FLANNEL = ("--network", "app")
KINDS: dict[str, tuple[str, ...]] = {
    "none": ("--network", "none"),
    "bridge": ("--network", "plain"),
    "flannel": FLANNEL,
    "bridge, 1 port": ("--network", "plain", "-p", "8080:80"),
    "flannel, 1 port": (*FLANNEL, "-p", "8080:80"),
}
CALL = re.compile(r"call=(\S+) ms=([0-9.]+)")
LIFE = (
    "RequestAddress",
    "CreateEndpoint",
    "Join",
    "ProgramExternalConnectivity",
    "EndpointOperInfo",
    "RevokeExternalConnectivity",
    "Leave",
    "DeleteEndpoint",
    "ReleaseAddress",
)


def main() -> None:
    """Measure and print two tables."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with Bed() as bed:
        host = bed.host("host")
        host.start_plugin({"DOCKER_FLANNEL_LOG_LEVEL": "debug"})
        host.start_dockerd()
        host.load_image()
        host.docker("network", "create", "plain")
        host.docker("network", "create", "-d", "flannel", "--ipam-driver", "flannel", "app")
        walls = lives(host, rounds)
        print(f"\nwall time of `docker run --rm`, ms, {rounds} containers each, alternating")
        table(walls.items(), compare="bridge")
        print("\nthe plugin's own time, ms, by call")
        calls(host.plugin_log())


def lives(host: Host, rounds: int) -> dict[str, list[float]]:
    """Return the wall times of each kind, in ms; a first round is not measured."""
    walls: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        for kind, options in KINDS.items():
            began = time.perf_counter()
            host.docker("run", "--rm", *options, "box", "true")
            if number:
                walls[kind].append((time.perf_counter() - began) * 1000)
        print(f"\r{number} of {rounds} rounds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return walls


def calls(log: str) -> None:
    """Print the times in the debug log: by call, and summed from each RequestAddress on."""
    spent: dict[str, list[float]] = defaultdict(list)
    sums: list[float] = []
    for method, ms in CALL.findall(log):
        name = method.partition(".")[2]
        if name not in LIFE:
            continue
        spent[name].append(float(ms))
        if name == "RequestAddress":
            sums.append(0.0)
        sums[-1] += float(ms)
    table([*((name, spent[name]) for name in LIFE), ("all calls of a container", sums)])


def table(rows: Iterable[tuple[str, list[float]]], compare: str = "") -> None:
    """Print a row for each list of times; with `compare`, also the ratio to that row's median."""
    found = dict(rows)
    base = statistics.median(found[compare]) if compare else 0.0
    for name, times in found.items():
        cuts = statistics.quantiles(times, n=100)
        ratio = f"   {cuts[49] / base:5.2f} of {compare}" if compare else ""
        print(f"  {name:28} p50 {cuts[49]:8.2f}   p99 {cuts[98]:8.2f}{ratio}")


if __name__ == "__main__":
    main()
