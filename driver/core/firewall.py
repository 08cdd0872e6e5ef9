"""Ports, masquerade and isolation as data: the nft table's text and its elements. Pure.

One table with a constant number of rules; what varies are elements of maps and sets. The table
does the address translation and all the drops. It cannot accept against somebody else's drop:
for that there is the `ForwardGate`, constant rules in Docker's own FORWARD path. They accept only
what bears the mark that is set here, so nothing passes while this table is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from itertools import permutations
from typing import get_args

from driver.model.facts import OWN, Facts
from driver.model.objects import Element, ForwardGate, HostObject, PortSocket, Table
from driver.model.records import (
    ANY,
    BRIDGE_PREFIX,
    HOST_END_PREFIX,
    Endpoint,
    Lease,
    Network,
    Overlay,
    PortMapping,
    Proto,
    State,
)

TABLE = "docker_flannel"
OVERLAY_LINKS = "flannel*"  # flanneld's devices: flannel.1, flannel0, flannel-wg, flannel.ipip

# The bit of a packet's mark that says: our rules have judged it. Set first, for what is dropped
# later never comes to the gate, and cleared last, so that no route look-up sees it. Bits of others:
# kube-proxy 14 and 15, Calico from 16 up (seldom past 20), Tailscale 16 to 23, Weave 17 and 18,
# Cilium 8 to 11 (and 16 up), VXLAN-GBP, from the wire, 0 to 15, 19 and 22; else small numbers.
JUDGED = 1 << 25
_SET_MARK = f"meta mark set meta mark or {JUDGED:#010x}"
_CLEAR_MARK = f"meta mark and {JUDGED:#010x} != 0 meta mark set meta mark xor {JUDGED:#010x}"

# Priorities: numbers a step before iptables' and Docker's own (-100, 100, 0), so that ours run
# first in whatever order the programs start. A map that misses lets the packet go on to the next
# line: the specific address is tried before the wildcard.
# By a veth itself come only frames to groups that no bridge passes on, and from others' veths, too.
# `sources` drops what comes from a known network's bridge (it is in `pair`) with an address not
# in `own4`, ahead of connection tracking, lest it belong to another network's connection. It leaves
# alone what stays on the bridge, which the host sees only where br_netfilter is at work.
# `forged` gets what goes to a port that takes frames of an overlay, also by way of another port. It
# leaves alone what stays on one bridge or goes to machines on another.
# `stray` gets what containers send to the overlay's Network, and lets it go only where a peer or a
# link of the host is: what no peer has must not leave in clear.
# "typeof" in sets of one type: a libnftables of 1.1 writes a "type" there in a way that crashes one
# of 1.0, be it that of the host's nft or of another form of this plugin.
TABLE_TEXT = f"""\
map pub4_ip {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
map pub4_any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
set uplinks {{ typeof oifname; }}
set carriers {{ typeof iifname; }}
set tunnels {{ typeof udp dport; }}
set internal {{ typeof iifname; }}
set pair {{ type ifname . ifname; }}
set own4 {{ type ipv4_addr . ifname; flags interval; }}
set also4 {{ type ipv4_addr . ifname; }}
set anysource {{ typeof iifname; }}
set lease4 {{ typeof ip saddr; flags interval; }}
set over4 {{ typeof ip saddr; flags interval; }}
set docker4 {{ typeof ip saddr; flags interval; }}
set closed4 {{ typeof ip daddr; flags interval; }}
set near4 {{ typeof ip daddr; flags interval; }}
set direct {{ typeof iifname; }}
set direct4 {{ typeof ip saddr; flags interval; }}
set direct24 {{ typeof ip saddr; }}
set peers4 {{ typeof ip saddr; }}
set etcd4 {{ type ipv4_addr . inet_service; }}
set etcd_here {{ typeof tcp dport; }}
set home4 {{ typeof ip saddr; flags interval; }}
chain guard {{
    type filter hook prerouting priority -301; policy accept;
    iifname "{HOST_END_PREFIX}*" counter drop
    iifname "{BRIDGE_PREFIX}*" goto sources
    iifname "{OVERLAY_LINKS}" goto peers
    iifname @direct ip saddr @home4 counter drop
    iifname @direct ip saddr & 255.255.255.0 @direct24 goto peers
    iifname @direct ip saddr @direct4 goto peers
}}
chain peers {{
    ip saddr @home4 counter drop
    tcp dport @etcd_here fib daddr type local counter drop
}}
chain sources {{
    ip daddr 127.0.0.0/8 counter drop
    ip saddr 127.0.0.0/8 counter drop
    tcp dport @etcd_here fib daddr type local counter drop
    ip daddr . tcp dport @etcd4 counter drop
    ip saddr . iifname @own4 accept
    iifname @anysource accept
    ip saddr . iifname @also4 fib daddr oifname != "{BRIDGE_PREFIX}*" accept
    ip daddr {{ 224.0.0.0/4, 255.255.255.255 }} accept
    ip daddr . iifname @own4 fib daddr type != local accept
    meta nfproto ipv4 iifname . iifname @pair counter drop
}}
chain input {{
    type filter hook input priority -1; policy accept;
    {_CLEAR_MARK}
    iifname "{OVERLAY_LINKS}" udp dport @tunnels counter drop
    meta iifkind "bridge" udp dport @tunnels jump forged
    meta pkttype multicast udp dport @tunnels ip daddr != 224.0.0.0/4 counter drop
}}
chain forged {{
    iifname @uplinks return
    iifname @carriers return
    oifname @uplinks counter drop
    meta oifkind "bridge" return
    counter drop
}}
chain localhost {{
    # answers to 127.0.0.1, which br_netfilter addresses before the bridge hands them up
    type filter hook prerouting priority -199; policy accept;
    iifname "{BRIDGE_PREFIX}*" ct direction reply ct original ip daddr 127.0.0.0/8 {_SET_MARK}
}}
chain nat_pre {{
    type nat hook prerouting priority -101; policy accept;
    ip daddr 127.0.0.0/8 return
    fib daddr type local jump publish
}}
chain nat_out {{
    type nat hook output priority -101; policy accept;
    fib daddr type local jump publish
}}
chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @pub4_ip
    dnat ip to meta l4proto . th dport map @pub4_any
}}
chain nat_post {{
    type nat hook postrouting priority 99; policy accept;
    ct status dnat oifname "{BRIDGE_PREFIX}*" ip saddr 127.0.0.0/8 masquerade
    ct status dnat ip saddr . oifname @own4 masquerade
    oifname "{BRIDGE_PREFIX}*" return
    ip saddr @docker4 ip daddr != 224.0.0.0/4 masquerade fully-random
    ip saddr @lease4 ip daddr != @over4 ip daddr != 224.0.0.0/4 masquerade fully-random
    ip saddr != @over4 ip daddr @over4 oifname "{OVERLAY_LINKS}" masquerade fully-random
}}
chain stray {{
    oifname "{BRIDGE_PREFIX}*" return
    oifname "{OVERLAY_LINKS}" return
    oifname @direct return
    ip daddr @near4 return
    counter drop
}}
chain forward {{
    type filter hook forward priority -1; policy accept;
    iifname "{BRIDGE_PREFIX}*" {_SET_MARK}
    oifname "{BRIDGE_PREFIX}*" {_SET_MARK}
    iifname "{BRIDGE_PREFIX}*" ip daddr @closed4 ct direction original jump stray
    ct state established,related accept
    meta iifkind "bridge" udp dport @tunnels jump forged
    iifname . oifname @pair accept
    iifname "{BRIDGE_PREFIX}*" oifname != "{OVERLAY_LINKS}" ct state invalid counter drop
    iifname "{BRIDGE_PREFIX}*" meta nfproto ipv6 counter drop
    iifname @internal counter drop
    oifname @internal counter drop
    oifname "{BRIDGE_PREFIX}*" iifname "{OVERLAY_LINKS}" accept
    oifname "{BRIDGE_PREFIX}*" iifname @direct ip saddr & 255.255.255.0 @direct24 accept
    oifname "{BRIDGE_PREFIX}*" iifname @direct ip saddr @direct4 accept
    oifname "{BRIDGE_PREFIX}*" iifname @direct ip saddr @peers4 accept
    ct status dnat accept
    iifname "{BRIDGE_PREFIX}*" oifname "{BRIDGE_PREFIX}*" counter drop
    iifname "{BRIDGE_PREFIX}*" meta oifkind "bridge" oifname != @uplinks counter drop
    oifname "{BRIDGE_PREFIX}*" counter drop
}}
chain sent {{
    type filter hook postrouting priority -301; policy accept;
    {_CLEAR_MARK}
}}
"""


def plan_base(lease: Lease, overlay: Overlay | None, facts: Facts) -> Iterator[HostObject]:
    """Give what one network or many need alike: the table, the overlay's prefix, the gates.

    Peers that are reached without encapsulation come and go by the external interface.

    A bridge that leads out of the host (`facts.uplinks`) may be left by; any other bridge that
    is not ours belongs to somebody's containers or machines, so one we do not know is closed.
    From there, unless the overlay itself is carried by it, no frames of the overlay are taken.
    """
    yield Table(TABLE_TEXT)
    yield Element("over4", str(lease.network))
    yield Element("home4", str(lease.subnet))
    if overlay and facts.external and _has_direct(overlay):
        yield Element("direct", f'"{facts.external.name}"')
    carriers = facts.carriers | ({facts.external.name} if facts.external else set())
    for bridge in facts.uplinks:
        yield Element("uplinks", f'"{bridge}"')
    for bridge in carriers & facts.foreign:
        yield Element("carriers", f'"{bridge}"')
    own = {overlay.port} if overlay and overlay.backend == "vxlan" else set()
    for port in facts.tunnels | own:
        yield Element("tunnels", str(port))
    if facts.firewall != "nft":  # which can tell by itself what is a bridge
        for bridge in facts.foreign:
            yield Element("foreign", f'"{bridge}"')
    yield from _plan_etcd(facts)
    for variant in facts.gates:
        yield ForwardGate(variant, facts.bridged)


def _plan_etcd(facts: Facts) -> Iterator[HostObject]:
    """Keep containers, other hosts' too, from etcd: who writes there rules the network.

    A member on this host may be reached by any of its addresses.
    """
    own = {ip for ip, what in facts.places if what == OWN}
    for ip, port in facts.etcd:
        yield Element("etcd4", f"{ip} . {port}")
    for port in {port for ip, port in facts.etcd if ip in own or ip.is_loopback}:
        yield Element("etcd_here", str(port))


def _has_direct(overlay: Overlay) -> bool:
    return overlay.direct_routing or overlay.backend == "host-gw"


def plan_network_rules(network: Network) -> Iterator[HostObject]:
    """Give the elements that let a network's members talk, and leave unless it is internal."""
    bridge, block = f'"{network.bridge}"', str(network.gateway.network)
    yield Element("pair", f"{bridge} . {bridge}", owner=network.id)
    yield Element("own4", f"{block} . {bridge}", owner=network.id)
    if network.docker_gateway:
        yield Element("own4", f"{network.docker_gateway.network} . {bridge}", owner=network.id)
    if network.any_source:
        yield Element("anysource", bridge, owner=network.id)
    if network.internal:
        yield Element("internal", bridge, owner=network.id)
        return
    if network.masquerade:
        yield Element("lease4", block, owner=network.id)
    if network.docker_gateway:
        # another host may have the same subnet: its addresses never leave this one
        yield Element("docker4", str(network.docker_gateway.network), owner=network.id)


def plan_sources(endpoint: Endpoint, other: Endpoint, state: State) -> Iterator[HostObject]:
    """Let two places of one container send with each other's address: so do its answers.

    It sends all by the network that has its default route, also what answers a packet that came
    by another one.
    """
    places = [(place, state.networks[place.network]) for place in (endpoint, other)]
    if any(network.internal for _, network in places):
        return
    for (place, _), (_, network) in permutations(places):
        yield Element("also4", f'{place.ip.ip} . "{network.bridge}"', owner=place.id)


def plan_ports(endpoint: Endpoint) -> Iterator[HostObject]:
    """Give a map element per published port, and the socket that keeps the host port ours.

    A port leads to the address the container has first, and a program may be bound to.
    """
    for port in endpoint.ports:
        yield PortSocket(port.proto, port.host_ip, port.host_port, endpoint.id)
        key, data = f"{port.proto} . {port.host_port}", f"{endpoint.shown_ip.ip} . {port.port}"
        if port.host_ip == ANY:
            yield Element("pub4_any", key, data, endpoint.id)
        else:
            yield Element("pub4_ip", f"{port.host_ip} . {key}", data, endpoint.id)


@dataclass(frozen=True, slots=True)
class Published:
    """A port as the firewall has it: the mapping, the container's address, the endpoint's id."""

    mapping: PortMapping
    target: IPv4Address
    owner: str


_address = lru_cache(maxsize=1024)(IPv4Address)  # a container's ports have one
PROTOS: dict[str, Proto] = {proto: proto for proto in get_args(Proto)}


def read_port(item: HostObject) -> Published | None:
    """Read back what `plan_ports` made an element of; None for every other object."""
    if not isinstance(item, Element) or not item.set.startswith("pub4_"):
        return None
    *host, proto, host_port = item.at.split(" . ")
    target, port = item.data.split(" . ")
    host_ip = _address(host[0]) if host else ANY
    mapping = PortMapping(PROTOS[proto], host_ip, int(host_port), int(port))
    return Published(mapping, _address(target), item.owner)
