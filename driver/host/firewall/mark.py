"""The mark by which the firewall's parts agree that a packet may pass."""

from __future__ import annotations

# The bit of a packet's mark that says: our rules have judged it. Set first, for what is dropped
# later never comes to the gate, and cleared last, so that no route look-up sees it. Bits of others:
# kube-proxy 14 and 15, Calico from 16 up (seldom past 20), Tailscale 16 to 23, Weave 17 and 18,
# Cilium 8 to 11 (and 16 up), VXLAN-GBP, from the wire, 0 to 15, 19 and 22; else small numbers.
JUDGED = 1 << 25
