"""What our netlink encoder and decoder take beside pyroute2's, and what it takes to load that.

`python -m benchmarks.netlink` (root): both in turn, in a network namespace of its own. Only ratios
of one run count. The decision on these numbers is in `driver.host.netlink.encoder`.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from driver.host.conntrack import deletion
from driver.host.links import Links
from driver.host.namespaces import in_sandbox, in_scratch
from driver.host.netlink import constants as nl
from driver.host.netlink import dump, encoder
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import read_link
from driver.model.firewall import Flows
from driver.model.objects import Bridge, Plan, UnreachableRoute, Veth

ROUNDS, MANY = 200, 1000
INTERFACE = IPv4Interface("10.2.0.2/24")
MAC, IP, NET = "02:00:0a:02:00:02", IPv4Address("10.2.0.2"), IPv4Network("10.2.0.0/24")
BRIDGE = Bridge("fl-bench", MAC, 1450, "b" * 64)
VETH = Veth("flhbench", BRIDGE.name, 1450, False, "e" * 64, "flcbench", MAC)
FLOWS = Flows("udp", 8080, IP, IP, 2)
HERE = "/proc/thread-self/ns/net"
LOAD = """
import time
def kb():
    return int(open("/proc/self/statm").read().split()[1]) * 4
from driver.host.links import Links
before, began = kb(), time.perf_counter()
Links.prepare()
print(f"{(time.perf_counter() - began) * 1000:.0f} ms and {(kb() - before) / 1024:.0f} MB")
"""
Act = Callable[[], object]


def pyroute2(module: str, name: str) -> Any:
    """Return one of its classes."""
    return getattr(import_module(f"pyroute2.netlink.{module}"), name)


def encoded(kind: Any, *attrs: encoder.Attribute, **fields: int) -> bytes:
    """Encode one of its messages."""
    message = kind()
    message.setvalue({**fields, "attrs": list(attrs)})
    message.encode()
    return bytes(message.data)


def nested(name: str, *attrs: encoder.Attribute) -> encoder.Attribute:
    """Put its attributes into one."""
    return name, {"attrs": list(attrs)}


def writes() -> dict[str, tuple[Act, Act]]:
    """Return what writes each message, by us and by pyroute2."""
    ifaddrmsg, rtmsg = pyroute2("rtnl.ifaddrmsg", "ifaddrmsg"), pyroute2("rtnl.rtmsg", "rtmsg")
    ndmsg = pyroute2("rtnl.ndmsg", "ndmsg")
    nfct_msg = pyroute2("nfnetlink.nfctsocket", "nfct_msg")
    name, group = ("IFLA_IFNAME", VETH.name), ("IFLA_GROUP", nl.GROUP)
    mtu, mac = ("IFLA_MTU", 1450), ("IFLA_ADDRESS", MAC)
    end = nested("VETH_INFO_PEER", ("IFLA_IFNAME", VETH.container_end), mtu, mac)
    port = nested("IFLA_INFO_SLAVE_DATA", ("IFLA_BRPORT_MODE", 0))
    inet = {"family": socket.AF_INET}
    to, lladdr = ("NDA_DST", str(IP)), ("NDA_LLADDR", MAC)
    via = ("RTA_GATEWAY", str(IP)), ("RTA_OIF", 7), ("RTA_PRIORITY", nl.METRIC)
    number, dport = ("CTA_PROTO_NUM", 17), ("CTA_PROTO_DST_PORT", 8080)
    there = nested("CTA_TUPLE_IP", ("CTA_IP_V4_DST", str(IP)))
    back = nested("CTA_TUPLE_IP", ("CTA_IP_V4_SRC", str(IP)))
    looks = ("CTA_FILTER_ORIG_FLAGS", 42), ("CTA_FILTER_REPLY_FLAGS", 1)

    def by_hand() -> bytes:
        info = encoder.nest(nl.IFLA_LINKINFO, encoder.string(nl.IFLA_INFO_KIND, "bridge"))
        number, hardware = encoder.u32(nl.IFLA_GROUP, nl.GROUP), encoder.mac(nl.IFLA_ADDRESS, MAC)
        return encoder.named(BRIDGE.name) + number + hardware + info

    ours_way = encoder.ipv4(nl.RTA_GATEWAY, IP), encoder.u32(nl.RTA_OIF, 7)
    metric = encoder.u32(nl.RTA_PRIORITY, nl.METRIC)
    return {
        "bridge": (
            by_hand,
            lambda: encoder.link(name, group, mac, encoder.link_kind("bridge")),
        ),
        "veth pair": (
            lambda: encoder.veth(VETH, 7),
            lambda: encoder.link(
                name,
                mtu,
                ("IFLA_MASTER", 7),
                group,
                nested("IFLA_LINKINFO", ("IFLA_INFO_KIND", "veth"), nested("IFLA_INFO_DATA", end)),
                up=True,
            ),
        ),
        "port of a bridge": (
            lambda: encoder.bridge_port(VETH),
            lambda: encoder.link(
                name,
                ("IFLA_IFALIAS", VETH.owner),
                nested("IFLA_LINKINFO", ("IFLA_INFO_SLAVE_KIND", "bridge"), port),
            ),
        ),
        "address": (
            lambda: encoder.address(7, INTERFACE),
            lambda: encoded(
                ifaddrmsg,
                ("IFA_LOCAL", str(IP)),
                ("IFA_ADDRESS", str(IP)),
                index=7,
                prefixlen=24,
                **inet,
            ),
        ),
        "flows to forget": (
            lambda: deletion(FLOWS),
            lambda: encoded(
                nfct_msg,
                nested("CTA_TUPLE_ORIG", there, nested("CTA_TUPLE_PROTO", number, dport)),
                nested("CTA_TUPLE_REPLY", back),
                ("CTA_STATUS", 0),
                ("CTA_STATUS_MASK", 2),
                nested("CTA_FILTER", *looks),
                nfgen_family=socket.AF_INET,
            ),
        ),
        f"{MANY} neighbours": (
            lambda: [encoder.neighbour(7, IP, MAC) for _ in range(MANY)],
            lambda: [encoded(ndmsg, to, lladdr, ifindex=7, state=128, **inet) for _ in range(MANY)],
        ),
        f"{MANY} FDB entries": (
            lambda: [encoder.fdb(7, MAC, IP) for _ in range(MANY)],
            lambda: [
                encoded(ndmsg, lladdr, to, ifindex=7, state=128, family=nl.AF_BRIDGE, flags=2)
                for _ in range(MANY)
            ],
        ),
        f"{MANY} routes": (
            lambda: [encoder.route(NET, metric, *ours_way) for _ in range(MANY)],
            lambda: [
                encoded(rtmsg, ("RTA_DST", "10.2.0.0"), *via, dst_len=24, proto=91, **inet)
                for _ in range(MANY)
            ],
        ),
    }


def reads() -> dict[str, tuple[Act, Act]]:
    """Return what reads a dump, by us and by pyroute2: one answer of the kernel, many times."""
    ifinfmsg, rtmsg = pyroute2("rtnl.ifinfmsg", "ifinfmsg"), pyroute2("rtnl.rtmsg", "rtmsg")
    with closing(Links()) as links, closing(Channel()) as channel:
        links.apply(Plan(add=(BRIDGE, VETH, UnreachableRoute(NET))))
        (link,) = channel.ask(nl.RTM_GETLINK, encoder.named(VETH.name))
        asked = nl.RTMSG.pack(socket.AF_INET, *bytes(4), 0, 0, nl.RTN_UNREACHABLE, 0)
        (route,) = channel.dump(nl.RTM_GETROUTE, asked)

    def decoded(kind: Any, body: bytes, name: str) -> Any:
        message = kind(body)
        message.decode()
        return message.get_attr(name)

    return {
        f"{MANY} links, decoded": (
            lambda: [read_link(link) for _ in range(MANY)],
            lambda: [decoded(ifinfmsg, link, "IFLA_IFNAME") for _ in range(MANY)],
        ),
        f"{MANY} routes, decoded": (
            lambda: [dump.read_route(route) for _ in range(MANY)],
            lambda: [decoded(rtmsg, route, "RTA_DST") for _ in range(MANY)],
        ),
    }


def compare() -> None:
    """Print a row for each pair: microseconds, and how many times ours pyroute2's takes."""
    setns = import_module("pyroute2.netns").setns

    def enter() -> None:
        thread = threading.Thread(target=setns, args=(HERE, 0))
        thread.start()
        thread.join()

    pairs = writes() | reads() | {"enter a namespace": (lambda: in_sandbox(HERE, int), enter)}
    for what, (ours, theirs) in pairs.items():
        spent: dict[Act, list[float]] = {ours: [], theirs: []}
        for _ in range(ROUNDS if str(MANY) not in what else ROUNDS // 20):
            for act, times in spent.items():
                began = time.perf_counter()
                act()
                times.append((time.perf_counter() - began) * 1e6)
        here, there = (statistics.median(times) for times in spent.values())
        print(f"  {what:24}{here:12.1f}{there:12.1f}{there / here:8.1f}")


def main() -> None:
    """Measure and print a table."""
    load = [sys.executable, "-c", LOAD]
    took = subprocess.run(load, check=True, capture_output=True, text=True).stdout
    print(f"to load pyroute2: {took}\n  {'microseconds':24}{'ours':>12}{'pyroute2':>12}   ratio")
    in_scratch(compare)


if __name__ == "__main__":
    main()
