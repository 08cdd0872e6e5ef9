"""The backends of the firewall, and the rules of a namespace, whoever made them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from driver.host.firewall.iptables import IptablesFirewall
from driver.host.firewall.nft import NftFirewall
from tests.kernel.namespaces import Namespace

FIREWALLS: dict[str, Callable[[], NftFirewall | IptablesFirewall]] = {
    "nft": NftFirewall,
    "iptables-nft": partial(IptablesFirewall, "nft"),
    "iptables-legacy": partial(IptablesFirewall, "legacy"),
}


def legacy_tables(host: Namespace) -> list[str]:
    """List the tables of the legacy iptables that are live."""
    with host:
        return Path("/proc/thread-self/net/ip_tables_names").read_text().split()


def flush(host: Namespace) -> None:
    """Take all rules away, of whatever backend."""
    host.run("nft", "flush", "ruleset")
    for table in legacy_tables(host):
        host.run("iptables-legacy", "-w", "-t", table, "-F")


def listing(host: Namespace) -> str:
    """List all rules with the kernel's handles."""
    text = host.run("nft", "-a", "list", "ruleset")
    if legacy_tables(host):
        text += "".join(
            line
            for line in host.run("iptables-legacy-save").splitlines(keepends=True)
            if not line.startswith(("#", ":"))
        )
    return text
