"""What an administrator or another program may change: a command for each kind and attribute.

The names in braces are those of `Site`. Each command is run by a shell on the host.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import NamedTuple

from driver.model.firewall import ENTRIES, PortMap
from driver.model.objects import RANK

TABLE = "inet docker_flannel"
KEY = "key"
OTHER_MAC = "02:00:00:00:00:99"
GATE = "DKFLANNEL-FORWARD"
JUMP = f"-m comment --comment docker-flannel -j {GATE}"


class Case(NamedTuple):
    """A change of a kind's field, or of what else the field stands for; `command` makes it."""

    kind: str
    field: str
    command: str

    @property
    def id(self) -> str:
        return f"{self.kind}.{self.field}: {self.command}"

    @property
    def steps(self) -> int:
        """Count the steps of the command: a pass may come between two."""
        return max(1, self.command.count("\n") - 1)


def made_anew(*words: str) -> str:
    """Return the commands that put a VTEP that passes for ours in the place of ours."""
    kind = {"id": "1", "dstport": "8472", "local": "{here}", "dev": "eth0"}
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    rest = " ".join(f"{name} {value}" for name, value in (kind | pairs).items())
    return (
        "ip -batch - <<END\nlink del {vtep}\nlink add {vtep} address {mac} group 26220 "
        f"type vxlan {rest} nolearning\nlink set {{vtep}} up alias docker-flannel:vtep\nEND\n"
    )


CASES = [
    Case("Bridge", "name", "ip link del {bridge}"),
    Case("Bridge", "name", "ip link set {bridge} down"),
    Case("Bridge", "mac", f"ip link set {{bridge}} address {OTHER_MAC}"),
    Case("Bridge", "mtu", "ip link set {bridge} mtu 1280"),
    Case("Bridge", "owner", "ip link set {bridge} alias docker-flannel:other"),
    Case("Bridge", "owner", "ip link set {bridge} group 5"),
    Case("Veth", "name", "ip link set {veth} down"),
    Case("Veth", "bridge", "ip link set {veth} nomaster"),
    Case("Veth", "mtu", "ip link set {veth} mtu 1280"),
    Case("Veth", "hairpin", "bridge link set dev {veth} hairpin off"),
    Case("Veth", "owner", "ip link set {veth} alias docker-flannel:other"),
    Case("Veth", "owner", "ip link set {veth} group 5"),
    Case("Vxlan", "name", "ip link del {vtep}"),
    Case("Vxlan", "name", "ip link set {vtep} down"),
    Case("Vxlan", "name", "ip link set {vtep} group 5"),
    Case("Vxlan", "vni", made_anew("id", "7")),
    Case("Vxlan", "port", made_anew("dstport", "9999")),
    Case("Vxlan", "local", "ip link set {vtep} type vxlan id 1 dev eth0 local 192.0.2.200"),
    Case("Vxlan", "parent", "ip link set {vtep} type vxlan id 1 dev {bridge}"),
    Case("Vxlan", "mac", f"ip link set {{vtep}} address {OTHER_MAC}"),
    Case("Vxlan", "mtu", "ip link set {vtep} mtu 1280"),
    Case("Vxlan", "gbp", made_anew("gbp", "")),
    Case("Vxlan", "learning", "ip link set {vtep} type vxlan learning"),
    Case("LinkAddress", "link", "ip addr del {gateway} dev {bridge}"),
    Case("LinkAddress", "ip", "ip addr add 198.51.100.1/24 dev {bridge}"),
    Case("LinkAddress", "ip", "ip addr del {first}/32 dev {vtep}"),
    Case("LoopbackGuard", "link", "tc qdisc del dev {bridge} clsact"),
    Case("LoopbackGuard", "routed", "sysctl net.ipv4.conf.{bridge}.route_localnet=0"),
    Case("Sysctl", "link", "sysctl net.ipv4.ip_forward=0"),
    Case("Sysctl", "family", "sysctl net.ipv6.conf.{vtep_}.accept_ra=2"),
    Case("Sysctl", "name", "sysctl net.ipv4.conf.{vtep_}.forwarding=0"),
    Case("Sysctl", "value", "sysctl net.ipv4.conf.{bridge}.forwarding=0"),
    Case("Neighbour", "link", "ip neigh del {peer_gateway} dev {vtep}"),
    Case("Neighbour", "ip", f"ip neigh add {{more}} lladdr {OTHER_MAC} dev {{vtep}} nud permanent"),
    Case(
        "Neighbour",
        "mac",
        f"ip neigh replace {{peer_gateway}} lladdr {OTHER_MAC} dev {{vtep}} nud permanent",
    ),
    Case("Fdb", "link", "bridge fdb del {peer_mac} dev {vtep}"),
    Case("Fdb", "mac", f"bridge fdb add {OTHER_MAC} dev {{vtep}} dst 192.0.2.66 self permanent"),
    Case("Fdb", "dst", "bridge fdb replace {peer_mac} dev {vtep} dst 192.0.2.66 self permanent"),
    Case("Fdb", "dst", "bridge fdb replace {peer_mac} dev {vtep} dst 192.0.2.66 self static"),
    Case("UnreachableRoute", "dst", "ip route del unreachable {lease}"),
    Case(
        "UnreachableRoute", "dst", "ip route add unreachable 198.51.100.0/24 metric 91000 proto 91"
    ),
    Case("PeerRoute", "dst", "ip route del {peer} metric 91000"),
    Case("PeerRoute", "dst", "ip route replace blackhole {peer} metric 91000"),
    Case("PeerRoute", "via", "ip route change {peer} via {more} dev {vtep} onlink metric 91000"),
    Case(
        "PeerRoute",
        "link",
        "ip route replace {peer} via 192.0.2.77 dev eth0 metric 91000 proto 91",
    ),
    Case(
        "PeerRoute",
        "onlink",
        "ip route replace {peer} via 192.0.2.66 dev eth0 metric 91000 proto 91",
    ),
    Case("SandboxAddress", "ip", "nsenter -n -t {plain} ip addr del {plain_ip} dev eth0"),
    Case("SandboxAddress", "overlay", "nsenter -n -t {plain} ip route flush table 91"),
    Case("Ruleset", "intact", f"nft insert rule {TABLE} forward accept"),
    Case("Ruleset", "intact", f"nft flush table {TABLE}"),
    Case("Ruleset", "intact", f"nft delete table {TABLE}"),
    Case("Ruleset", "intact", f"nft add chain {TABLE} more"),
    Case("Masquerade", KEY, f"nft delete element {TABLE} lease4 {{{{ {{block}} }}}}"),
    Case("PortMap", KEY, f"nft delete element {TABLE} pub4_any {{{{ tcp . 8080 }}}}"),
    Case(
        "PortMap",
        "target",
        f"nft 'delete element {TABLE} pub4_any {{{{ tcp . 8080 }}}}; add element {TABLE} "
        "pub4_any {{ tcp . 8080 : 10.2.9.9 . 80 }}'",
    ),
    Case(
        "PortMap",
        "target_port",
        f"nft 'delete element {TABLE} pub4_any {{{{ tcp . 8080 }}}}; add element {TABLE} "
        "pub4_any {{ tcp . 8080 : {address} . 81 }}'",
    ),
    Case(
        "PortMap",
        "owner",
        f"nft 'delete element {TABLE} pub4_any {{{{ tcp . 8080 }}}}; add element {TABLE} "
        "pub4_any {{ tcp . 8080 : {address} . 80 }}'",
    ),
    *(
        Case(kind, KEY, f"nft add element {TABLE} {place} {{{{ {element} }}}}")
        for kind, place, element in (
            ("BridgePair", "pair", "fl-other . fl-more"),
            ("SourcePrefix", "own4", "10.9.9.0/24 . fl-other"),
            ("SourceAddress", "also4", "10.9.9.9 . fl-other"),
            ("AnySource", "anysource", "fl-other"),
            ("InternalBridge", "internal", "fl-other"),
            ("DockerMasquerade", "docker4", "10.9.9.0/24"),
            ("OverlayPrefix", "over4", "10.9.9.0/24"),
            ("LeasePrefix", "home4", "10.9.9.0/24"),
            ("ClosedPrefix", "closed4", "10.9.9.0/24"),
            ("NearPrefix", "near4", "10.9.9.0/24"),
            ("DirectLink", "direct", "eth9"),
            ("PeerPrefix", "direct24", "10.9.9.0"),
            ("PeerPrefix", "direct4", "10.9.0.0/16"),
            ("PeerAddress", "peers4", "192.0.2.9"),
            ("EtcdMember", "etcd4", "192.0.2.9 . 2379"),
            ("LocalEtcd", "etcd_here", "9999"),
            ("Uplink", "uplinks", "br9"),
            ("Carrier", "carriers", "br9"),
            ("TunnelPort", "tunnels", "9999"),
            ("UnknownEntry", "over4", "10.9.9.1-10.9.9.6"),
        )
    ),
    Case("ForwardGate", "variant", f"iptables -D DOCKER-USER {JUMP}"),
    Case("ForwardGate", "variant", f"iptables -F {GATE}"),
    Case("ForwardGate", "bridged", f"iptables -I {GATE} -j RETURN"),
]
# What cannot be changed on the host itself, each with the reason.
EXEMPT = {
    ("Veth", "container_end"): "Docker moves and renames it; it counts when the pair is made",
    ("Veth", "mac"): "it counts when the pair is made; Docker has it in the sandbox",
    ("Veth", "ips"): "a hint for neighbours, which no link has",
    ("SandboxAddress", "link"): "the end of the veth: see Veth",
    ("SandboxAddress", "sandbox"): "the path to it, which Docker makes",
    ("SandboxAddress", "via"): "the gateway of the route, which changes with `overlay`",
    **dict.fromkeys(
        [("PortSocket", name) for name in ("proto", "ip", "port", "owner")],
        "a socket of the plugin's own process, which nobody else can change",
    ),
    ("ForeignBridge", KEY): "only iptables needs to be told",
    **dict.fromkeys(
        [
            (kind.__name__, "owner")
            for kind in ENTRIES
            if "owner" in kind.__slots__ and kind != PortMap
        ],
        "the comment of an element: see PortMap",
    ),
}


def attributes() -> set[tuple[str, str]]:
    """List the fields of all kinds of objects; what identifies an entry is one of them."""
    return {
        (kind.__name__, KEY if kind in ENTRIES and field.name in kind.identity else field.name)
        for kind in RANK
        for field in fields(kind)
    }


def interleaved() -> list[Case]:
    """Order the cases so that those of a kind are apart: many in a row would be a fight."""
    all_of, seen = Counter(case.kind for case in CASES), Counter[str]()
    turns = []
    for case in CASES:
        seen[case.kind] += 1
        turns.append((seen[case.kind] / all_of[case.kind], case))
    return [case for _, case in sorted(turns, key=lambda turn: turn[0])]
