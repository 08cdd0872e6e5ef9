"""What a host can do for the plugin, and what is on it already."""

from __future__ import annotations

from dataclasses import dataclass, field

from driver.model.facts import External, Facts

BRIDGE, VETH, VXLAN = "bridge", "veth", "vxlan"
NF_TABLES, LIBNFTABLES, GUARDS = "nf_tables", "libnftables", "guards of 127.0.0.1"
VXLAN_PORT = 8472  # UDP, where no config has another; the kernel's, not IANA's


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found on this host.

    `lacking`: what kernel and libraries do not have, of the names above. `external`: the interface
    to the other hosts; None with the reason in `no_external`. `port_taken`: a program has the UDP
    port of the overlay.
    """

    lacking: frozenset[str] = frozenset()
    facts: Facts = field(default_factory=Facts)
    external: External | None = None
    no_external: str = ""
    port_taken: bool = False
