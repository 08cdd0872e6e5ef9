"""How long a plugin takes from its start to routes for all peers, and to one for a new peer.

`python -m benchmarks.node` measures one host and a real etcd with 100, 1,000 and 5,000 leases of
other hosts. Time counts from the start of the process, so it includes loading Python. Memory and
CPU time are those of the plugin's processes; CPU time hardly depends on other load.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from driver.flannel.etcd.client import Etcd
from driver.flannel.etcd.settings import EtcdSettings
from driver.flannel.records import config_key, lease_key, lease_range, lease_value
from tests.bed import Bed, Host, Node, wait_for

SIZES = (100, 1000, 5000)
MORE = 50
PREFIX = "/coreos.com/network"
CONFIG = (
    '{"Network": "10.0.0.0/8", "SubnetMin": "10.240.0.0", "SubnetMax": "10.250.0.0", '
    '"Backend": {"Type": "vxlan"}}'
)
ROUTES = Path("/proc/net/route")
PATIENCE_S = 120.0


def main() -> None:
    """Measure each size on its own host, and print a table."""
    if sys.argv[1:2] == ["fill"]:
        fill(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["more"]:
        more(sys.argv[2], int(sys.argv[3]))
    else:
        print("          start to all routes /              one lease put")
        print("  peers   to the first answer, CPU           to its route p50 / p99   memory")
        for size in SIZES:
            with Bed() as bed:
                print(measure(bed, size), flush=True)


def measure(bed: Bed, size: int) -> str:
    """Return a row of the table."""
    store, host = bed.client("etcd"), bed.host("host")
    url = start_etcd(store)
    me = (sys.executable, "-m", "benchmarks.node")
    store.run(*me, "fill", url, str(size), cwd=Path.cwd(), limit_s=300)
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        seen = beside.submit(routed, host, size)
        host.start_plugin({"FLANNELD_ETCD_ENDPOINTS": url})
        answered = time.perf_counter() - began
        whole = seen.result() - began
    work = sum(spent(pid) for pid in host.plugin_pids())
    times = f"{whole:.2f} / {answered:.2f} s, {work:.2f} s"
    one = host.run(*me, "more", url, str(size), cwd=Path.cwd(), limit_s=300).stdout
    memory = sum(resident(pid) for pid in host.plugin_pids())
    return f"  {size:5}   {times:>33}   {one.strip():>33}   {memory:5.0f} MB"


def routed(host: Host, size: int) -> float:
    """Wait for the routes; return when they are there."""
    wait_for(lambda: routes(host) >= size, f"{size} routes", PATIENCE_S, every_s=0.005)
    return time.perf_counter()


def start_etcd(store: Node) -> str:
    """Start etcd; return its URL."""
    url = f"http://{store.address}:2379"
    words = (
        f"--listen-client-urls {url} --advertise-client-urls {url} --data-dir {store.folder}/data"
    )
    store.popen("etcd", *words.split(), log_name="etcd")
    wait_for(lambda: store.reaches(f"{url}/health"), "etcd")
    return url


def routes(host: Host) -> int:
    """Return the number of routes through the VTEP, read from outside the host."""
    return Path(f"/proc/{host.pid}/net/route").read_text().count("flannel.1\t")


def resident(pid: int) -> float:
    """Return a process's memory, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def spent(pid: int) -> float:
    """Return a process's CPU time, in s, with that of its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def fill(url: str, size: int) -> None:
    """Write the config and the other hosts' leases, from inside a node."""
    etcd = Etcd(EtcdSettings.read(url))
    etcd.put_if(config_key(PREFIX), CONFIG, 0)
    for number in range(size):
        put(etcd, number)


def put(etcd: Etcd, number: int) -> IPv4Network:
    """Write the lease of one more host; return its subnet."""
    subnet = IPv4Network((0x0A000000 + (number << 8), 24))
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
    value = lease_value(IPv4Address(0xC6336400 + number), "vxlan", 1, mac)
    etcd.put_if(f"{lease_range(PREFIX)}/{lease_key(subnet)}", value, 0)
    return subnet


def more(url: str, size: int) -> None:
    """Write leases one by one from inside the host, and print how long their routes take."""
    etcd = Etcd(EtcdSettings.read(url))
    times = []
    for number in range(size, size + MORE):
        began = time.perf_counter()
        subnet = put(etcd, number)
        wanted = f"flannel.1\t{int.from_bytes(subnet.network_address.packed, 'little'):08X}\t"
        while wanted not in ROUTES.read_text():
            if time.perf_counter() - began > PATIENCE_S:
                raise SystemExit(f"no route to {subnet} within {PATIENCE_S:.0f} s")
            time.sleep(0.002)
        times.append((time.perf_counter() - began) * 1000)
    cuts = statistics.quantiles(times, n=100)
    print(f"{cuts[49]:.0f} / {cuts[98]:.0f} ms")


if __name__ == "__main__":
    main()
