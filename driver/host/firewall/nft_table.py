"""The constant part of the nft table: chains, rules, and the sets and maps that they look in.

The number of rules is constant; what varies are elements of maps and sets (`nft_elements`).
"""

from __future__ import annotations

from driver.host.firewall.mark import JUDGED
from driver.model.records import BRIDGE_PREFIX, HOST_END_PREFIX

TABLE = "docker_flannel"
OVERLAY_LINKS = "flannel*"  # flanneld's devices: flannel.1, flannel0, flannel-wg, flannel.ipip

_SET_MARK = f"meta mark set meta mark or {JUDGED:#010x}"
_CLEAR_MARK = f"meta mark and {JUDGED:#010x} != 0 meta mark set meta mark xor {JUDGED:#010x}"

# Priorities: numbers a step before iptables' and Docker's own (-100, 100, 0), so that ours run
# first in whatever order the programs start. A map that misses lets the packet go on to the next
# line: the specific address is tried before the wildcard.
# Only frames to groups that no bridge passes on arrive on a veth itself, others' veths included.
# `sources` drops what comes from a known network's bridge (it is in `pair`) with an address not
# in `own4`, before connection tracking could find another network's connection for it. It leaves
# alone what stays on the bridge, which the host sees only where br_netfilter is at work.
# `forged` gets what goes to a port that takes frames of an overlay, also by way of another port. It
# leaves alone what stays on one bridge or goes to machines on another.
# `stray` gets what containers send to the overlay's Network, and lets it go only where a peer or a
# link of the host is: what no peer has must not leave in clear.
# "typeof" in sets of one type: a libnftables of 1.1 writes a "type" there in a way that crashes one
# of 1.0, be it that of the host's nft or of another form of this plugin.
TEXT = f"""\
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
