"""How long the overlay takes for many peers: all at once, one more, and a pass without drift.

`python -m benchmarks.peers [PEERS...]` (default 100 1000 5000; root) measures each number in its
own process and network namespace, with the netlink monitor running as in the plugin, from the
leases to the last route: plan, observe, diff, apply. flanneld 0.20 took 0.75 s for 1,000 peers and
3.2 s for 5,000 on the machine where this was written; only ratios within one run count. Above some
thousand peers the time is not linear: the kernel compares a new route with all others of its link
(fib_find_info), which at 5,000 is more than half of the time.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from driver.host.links import Links
from driver.host.netlink.monitor import Monitor
from driver.host.overlay import OverlayAdapter
from driver.host.underlay import external
from driver.model.objects import HostObject, Plan, diff
from driver.model.records import Overlay, Peer, Vtep
from driver.vxlan import plan_peers, plan_vtep

NETWORK = IPv4Network("10.0.0.0/8")
OVERLAY = Overlay(NETWORK, 24, NETWORK[1 << 8], NETWORK[0xFFFF00], "vxlan")
HOST = IPv4Address("172.16.0.1")
MORE = 200
ROUNDS = 5


def peer(number: int) -> Peer:
    """Return one of many peers."""
    mac = "aa:bb:" + number.to_bytes(4, "big").hex(":")
    return Peer(IPv4Network((int(NETWORK[0]) + 256 * number, 24)), HOST + number, "vxlan", mac)


class Node:
    """A flannel host without containers."""

    def __init__(self, made: ExitStack) -> None:
        run("ip", "link", "add", "eth0", "up", "type", "veth", "peer", "name", "far")
        run("ip", "link", "set", "far", "up")
        run("ip", "addr", "add", f"{HOST}/12", "dev", "eth0")
        monitor = Monitor()
        self.overlays = made.enter_context(closing(OverlayAdapter(monitor)))
        self.netlink = made.enter_context(closing(Links(monitor)))
        self.external = external(self.netlink.surroundings(), "eth0", None)
        self.reports: list[frozenset[str]] = []
        stop = threading.Event()
        listener = threading.Thread(target=self.netlink.watch, args=(self.reports.append, stop))
        listener.start()
        made.callback(listener.join)
        made.callback(stop.set)

    def want(self, peers: Iterable[Peer]) -> frozenset[HostObject]:
        """Return the objects that the host should have."""
        vtep = Vtep(HOST, "02:00:00:00:00:01")
        mine = plan_vtep(OVERLAY, IPv4Network("10.0.0.0/24"), vtep, self.external)
        return frozenset([*mine, *plan_peers(OVERLAY, peers, vtep, self.external)])

    def observe(self) -> frozenset[HostObject]:
        """Return the objects that it has."""
        return self.overlays.observe() | self.netlink.observe()

    def apply(self, plan: Plan) -> None:
        """Apply a plan as the reconciler does."""
        take_away, make = Plan(remove=plan.remove), Plan(add=plan.add, change=plan.change)
        self.netlink.apply(take_away.only(self.netlink.kinds))
        self.overlays.apply(take_away.only(self.overlays.kinds))
        self.overlays.apply(make.only(self.overlays.kinds))
        self.netlink.apply(make.only(self.netlink.kinds))


def run(*command: str) -> None:
    """Run a program, which must succeed."""
    subprocess.run(command, check=True)


def took(act: Callable[[], object]) -> float:
    """Return the seconds that a function takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(count: int) -> None:
    """Print the row for a number of peers."""
    peers = [peer(number) for number in range(1, count + 1)]
    with ExitStack() as made:
        node = Node(made)

        def fill() -> None:
            node.apply(diff(node.observe(), node.want(peers)))

        alone, want = node.want(()), node.want(peers)
        fills, clears = [], []
        for _ in range(ROUNDS):
            node.apply(diff(node.observe(), alone))
            fills.append(took(fill))
            assert not diff(node.observe(), want)
            clears.append(took(lambda: node.apply(diff(want, alone))))
        fill()
        looks = [took(node.observe) for _ in range(ROUNDS)]
        passes = [took(fill) for _ in range(ROUNDS)]
        more = [
            took(partial(put_one, node, number)) for number in range(count + 1, count + 1 + MORE)
        ]
        node.apply(diff(node.observe(), ()))
    cuts = statistics.quantiles(more, n=100)
    rss_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = [statistics.median(part) for part in (fills, clears, looks, passes)]
    cells = [f"{s:9.3f}" for s in times] + [f"{cuts[at] * 1000:8.2f}" for at in (49, 98)]
    print(f"{count:7}", *cells, f"{rss_kb / 1024:8.1f}", flush=True)


def put_one(node: Node, number: int) -> None:
    """Add one more peer."""
    node.apply(diff(node.want(()), node.want([peer(number)])))


def main() -> None:
    """Measure each number in its own process."""
    if sys.argv[1:2] == ["--here"]:
        measure(int(sys.argv[2]))
        return
    print("median of 5, seconds: fill an empty device; remove all; observe; a pass without drift")
    print(f"one more peer, of {MORE}: milliseconds.  RSS: highest, MB")
    print("  peers      fill    remove   observe      pass      p50      p99      RSS", flush=True)
    for count in sys.argv[1:] or ["100", "1000", "5000"]:
        here = [sys.executable, "-m", "benchmarks.peers", "--here", count]
        subprocess.run(["unshare", "--net", *here], check=True, cwd=Path(__file__).parents[1])


if __name__ == "__main__":
    main()
