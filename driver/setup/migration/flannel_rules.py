"""What flanneld puts into the firewall, and the words that remove it. Pure.

Source: flannel, pkg/trafficmngr/iptables and nftables.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from itertools import pairwise

CHAINS = "FLANNEL-"
COMMENTS = ("flanneld masq", "flanneld forward")
TABLES = (("ip", "flannel-ipv4"), ("ip6", "flannel-ipv6"))

Words = tuple[str, ...]


def removals(saved: str) -> Iterator[Words]:
    """Yield the arguments of iptables that remove flanneld's rules and chains.

    `saved`: what iptables-save prints. A rule is flanneld's if it has its comment or leads to one
    of its chains; no other rule is named.
    """
    rules: list[Words] = []
    chains: list[Words] = []
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(f":{CHAINS}"):
            chain = line[1:].split()[0]
            chains += [("-t", table, "-F", chain), ("-t", table, "-X", chain)]
        elif line.startswith("-A ") and not line.startswith(f"-A {CHAINS}"):
            words = shlex.split(line)
            if _is_flannelds(words):
                rules.append(("-t", table, "-D", *words[1:]))
    yield from rules
    yield from chains


def _is_flannelds(words: list[str]) -> bool:
    after = dict(pairwise(words))
    return after.get("--comment") in COMMENTS or after.get("-j", "").startswith(CHAINS)


def tables(listed: str) -> list[Words]:
    """Return flanneld's nft tables, family and name. `listed`: `nft -j list tables`."""
    rows = [row["table"] for row in json.loads(listed)["nftables"] if "table" in row]
    return [name for name in TABLES if any((r["family"], r["name"]) == name for r in rows)]
