"""An overlay with two peers, as the objects its adapters carry."""

import json
import re
from ipaddress import IPv4Address, IPv4Network

from driver.host.netlink.constants import METRIC, PROTOCOL
from driver.model.facts import External
from driver.model.objects import Fdb, Neighbour, PeerRoute, diff
from driver.model.records import Overlay, Peer, Vtep
from driver.vxlan import plan_peers, plan_vtep
from tests.kernel.sample import pick

NET, SUBNET = IPv4Network("10.5.0.0/16"), IPv4Network("10.5.10.0/24")
OVERLAY = Overlay(NET, 24, IPv4Address("10.5.1.0"), IPv4Address("10.5.255.0"), "vxlan")
VTEP = Vtep(IPv4Address("192.168.77.11"), "fe:2d:0c:76:f0:81")
ETH0 = External("eth0", VTEP.public_ip, 1500, (IPv4Network("192.168.77.0/24"),))
OURS = f"proto {PROTOCOL} metric {METRIC}"


def peer(number, host=None, mac=None):
    host = number if host is None else host
    public = IPv4Address("192.168.0.0") + 256 * 77 + host
    mac = f"aa:27:46:00:{host >> 8:02x}:{host & 255:02x}" if mac is None else mac
    return Peer(IPv4Network((int(NET[0]) + 256 * number, 24)), public, "vxlan", mac)


PEERS = (peer(24), peer(25))
DEVICE, ADDRESS, ACCEPT_RA = plan_vtep(OVERLAY, SUBNET, VTEP, ETH0)
_peer = list(plan_peers(OVERLAY, PEERS[:1], VTEP, ETH0))
NEIGHBOUR, FDB, ROUTE = pick(Neighbour, _peer), pick(Fdb, _peer), pick(PeerRoute, _peer)
ALL = frozenset((DEVICE, ADDRESS, ACCEPT_RA, *plan_peers(OVERLAY, PEERS, VTEP, ETH0)))
NAME = "flannel.1"


def wanted(peers, overlay=OVERLAY):
    objects = *plan_vtep(overlay, SUBNET, VTEP, ETH0), *plan_peers(overlay, peers, VTEP, ETH0)
    return frozenset(objects)


def run(host, line):
    host.run(*(line if line.startswith("bridge") else f"ip {line}").split())


def repair(node, want=ALL):
    """See drift, repair it, and see none any more; give the kinds of objects it was in."""
    plan = diff(node.observe(), want)
    node.apply(plan)
    assert not diff(node.observe(), want)
    return {type(t) for t in (*plan.add, *plan.remove, *(new for _, new in plan.change))}


def shown(host, *command):
    return json.loads(host.run(*command))


def everything(host):
    """Return what the kernel has of links, routes and entries.

    Left out is what takes its time to settle: IPv6, and a carrier that comes after `link set up`.
    """
    commands = ("ip -d link", "ip -4 addr", "ip -4 route show table all", "ip -4 neigh")
    fdb = [line for line in host.run("bridge", "fdb").splitlines() if "dst" in line]
    shown = [host.run(*command.split()) for command in commands]
    return [re.sub(r",LOWER_UP|NO-CARRIER,| state \w+", "", text) for text in shown] + fdb
