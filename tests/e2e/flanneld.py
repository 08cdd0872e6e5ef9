"""A flanneld in small, for machines without one: what it writes, in etcd, the kernel and its file.

As a program: `python -m tests.e2e.flanneld [ETCD-URL]`, or with the URL and `--ip-masq` in
flanneld's variables. It is called "flanneld" where processes are
listed. As the real one it makes its device, takes the lease with its public IP or another, writes
its file, makes its chains, and then makes peers reachable; SIGTERM leaves all of it. Source:
flannel 0.20, the chains of 0.21.3.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

PREFIX = "/coreos.com/network"
LEASES = f"{PREFIX}/subnets/"
FILE = Path("/run/flannel/subnet.env")
DEVICE = "flannel.1"


def ip(*argv: str, check: bool = True) -> str:
    """Run `ip` or, for a command of one word with others, that."""
    done = subprocess.run(argv, capture_output=True, text=True, check=check)
    return done.stdout


class Etcd:
    """The few calls a flanneld makes."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _ask(self, call: str, **body: Any) -> dict[str, Any]:
        text = json.dumps(body).encode()
        with urllib.request.urlopen(f"{self._url}/v3/{call}", text, 10) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found

    def get(self, key: str, end: str = "") -> dict[str, str]:
        """Return values by key."""
        found = self._ask("kv/range", key=_code(key), range_end=_code(end))
        return {_text(kv["key"]): _text(kv["value"]) for kv in found.get("kvs", [])}

    def put(self, key: str, value: str) -> None:
        """Write a key that lasts for a day."""
        lease = self._ask("lease/grant", TTL=86400)["ID"]
        self._ask("kv/put", key=_code(key), value=_code(value), lease=lease)

    def leases(self) -> dict[IPv4Network, dict[str, Any]]:
        """Return the leases by subnet."""
        found = self.get(LEASES, LEASES[:-1] + "0")
        return {
            IPv4Network(key.removeprefix(LEASES).replace("-", "/")): json.loads(value)
            for key, value in found.items()
        }


def _code(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(code: str) -> str:
    return base64.b64decode(code).decode()


def device(address: str) -> str:
    """Make the device, or take the one of that name; return its MAC."""
    mac = bytes([secrets.randbits(8) & 0xFC | 2, *secrets.token_bytes(5)]).hex(":")
    kind = ("type", "vxlan", "id", "1", "dev", "eth0", "local", address, "dstport", "8472")
    ip("ip", "link", "add", DEVICE, "address", mac, *kind, "nolearning", check=False)
    return str(json.loads(ip("ip", "-j", "link", "show", DEVICE))[0]["address"])


def acquire(etcd: Etcd, network: IPv4Network, address: str, mac: str) -> IPv4Network:
    """Take the lease that has our public IP, else the first that is free, and write it."""
    taken = etcd.leases()
    mine = [subnet for subnet, lease in taken.items() if lease["PublicIP"] == address]
    free = (s for s in list(network.subnets(new_prefix=24))[1:] if s not in taken)
    subnet = mine[0] if mine else next(free)
    value = {
        "PublicIP": address,
        "PublicIPv6": None,
        "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": mac},
    }
    key = f"{LEASES}{subnet.network_address}-{subnet.prefixlen}"
    etcd.put(key, json.dumps(value, separators=(",", ":")))
    return subnet


def furnish(network: IPv4Network, subnet: IPv4Network, *, masquerades: bool) -> None:
    """Address the device, make the chains, write the file."""
    ip("ip", "addr", "add", f"{subnet.network_address}/32", "dev", DEVICE, check=False)
    ip("ip", "link", "set", DEVICE, "up")
    forward = [("-s", str(network), "-j", "ACCEPT"), ("-d", str(network), "-j", "ACCEPT")]
    chain("filter", "FORWARD", "FLANNEL-FWD", "flanneld forward", forward)
    if masquerades:
        chain(
            "nat", "POSTROUTING", "FLANNEL-POSTRTG", "flanneld masq", masquerading(network, subnet)
        )
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    FILE.parent.mkdir(parents=True, exist_ok=True)
    new = FILE.with_name(f".{FILE.name}")
    new.write_text(
        f"FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={subnet[1]}/{subnet.prefixlen}\n"
        f"FLANNEL_MTU=1450\nFLANNEL_IPMASQ={str(masquerades).lower()}\n"
    )
    new.replace(FILE)


def masquerading(network: IPv4Network, subnet: IPv4Network) -> list[tuple[str, ...]]:
    """Return the rules of FLANNEL-POSTRTG, as of flannel 0.21.3."""
    n, s, back, out = str(network), str(subnet), ("-j", "RETURN"), ("-j", "MASQUERADE")
    return [
        ("-m", "mark", "--mark", "0x4000/0x4000", *back),
        ("-s", s, "-d", n, *back),
        ("-s", n, "-d", s, *back),
        ("!", "-s", n, "-d", s, *back),
        ("-s", n, "!", "-d", "224.0.0.0/4", *out, "--random-fully"),
        ("!", "-s", n, "-d", n, *out, "--random-fully"),
    ]


def chain(
    table: str, parent: str, name: str, comment: str, rules: Iterable[tuple[str, ...]]
) -> None:
    """Make or empty a chain, fill it, and append the jump to it."""
    told, tables = ("-m", "comment", "--comment", comment), ("iptables", "-w", "-t", table)
    ip(*tables, "-N", name, check=False)
    ip(*tables, "-F", name)
    for rule in rules:
        ip(*tables, "-A", name, *rule[: rule.index("-j")], *told, *rule[rule.index("-j") :])
    ip(*tables, "-D", parent, *told, "-j", name, check=False)
    ip(*tables, "-A", parent, *told, "-j", name)


def peer(subnet: IPv4Network, lease: dict[str, Any]) -> None:
    """Make a peer reachable."""
    mac, home, gateway = lease["BackendData"]["VtepMAC"], lease["PublicIP"], subnet[0]
    entry = ("lladdr", mac, "dev", DEVICE, "nud", "permanent")
    ip("ip", "neigh", "replace", str(gateway), *entry)
    ip("bridge", "fdb", "replace", mac, "dev", DEVICE, "dst", home, "self", "permanent")
    ip("ip", "route", "replace", str(subnet), "via", str(gateway), "dev", DEVICE, "onlink")


def ready() -> None:
    """Tell the bed and, where it waits for that, systemd."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if "NOTIFY_SOCKET" in os.environ:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def main(url: str) -> None:
    """Be a flanneld until SIGTERM."""
    Path("/proc/self/comm").write_text("flanneld")
    etcd = Etcd(url)
    network = IPv4Network(json.loads(etcd.get(f"{PREFIX}/config")[f"{PREFIX}/config"])["Network"])
    shown = json.loads(ip("ip", "-j", "-4", "addr", "show", "eth0"))
    address = str(shown[0]["addr_info"][0]["local"])
    own = acquire(etcd, network, address, device(address))
    furnish(network, own, masquerades=os.environ.get("FLANNELD_IP_MASQ") == "true")
    known: dict[IPv4Network, dict[str, Any]] = {}
    while True:
        found = etcd.leases()
        for subnet, lease in found.items():
            if subnet != own and known.get(subnet) != lease:
                peer(subnet, lease)
        known = found
        ready()
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else os.environ["FLANNELD_ETCD_ENDPOINTS"])
