"""Tries what the plugin needs of the kernel, and looks at what is on the host already.

The kernel is tried in a network namespace that ends with the try: this loads modules as the plugin
would, and changes nothing on the host.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from ipaddress import IPv4Address

from driver.errors import HostError, Unavailable
from driver.host import surroundings, underlay
from driver.host.firewall.nft_generation import has_nf_tables
from driver.host.flanneld_probe import FlanneldProbe
from driver.host.loopback import LoopbackGuards
from driver.host.namespaces import in_scratch
from driver.host.netlink import constants as nl
from driver.host.netlink.channel import Channel
from driver.host.netlink.encoder import attribute, nest, ours, string, u32
from driver.model.firewall import Ruleset
from driver.model.objects import LoopbackGuard, Plan
from driver.model.preflight import (
    BRIDGE,
    GUARDS,
    LIBNFTABLES,
    NF_TABLES,
    VETH,
    VXLAN,
    VXLAN_PORT,
    Preflight,
)
from driver.model.records import replace

PROBE = "fl-probe"


def look(iface: str | None, public_ip: IPv4Address | None, port: int) -> Preflight:
    """Try the kernel and look at the host; `port` is the overlay's.

    Errors: HostError if this process may not.
    """
    try:
        lacking = in_scratch(lambda: frozenset(_lacking()))
        with closing(Channel()) as channel, closing(FlanneldProbe()) as probe:
            found = surroundings.look(channel)
            facts = replace(surroundings.facts(found), flanneld=probe.look())
    except PermissionError as error:
        raise HostError(f"the kernel refuses to be tried ({error.strerror}): use sudo") from error
    except OSError as error:
        raise HostError(f"the host cannot be looked at: {error}") from error
    by_device = facts.flanneld.own or port in {used for _, _, used in facts.flanneld.devices}
    made = Preflight(lacking, facts, port_taken=not by_device and not _free(port))
    try:
        return replace(made, external=underlay.external(found, iface, public_ip))
    except Unavailable as error:
        return replace(made, no_external=str(error))


def _lacking() -> Iterator[str]:
    """Return what the kernel lacks, tried in the present network namespace."""
    vni = u32(nl.IFLA_VXLAN_ID, 1) + attribute(nl.IFLA_VXLAN_PORT, VXLAN_PORT.to_bytes(2, "big"))
    with closing(Channel()) as channel:
        for kind, data in ((BRIDGE, b""), (VETH, b""), (VXLAN, nest(nl.IFLA_INFO_DATA, vni))):
            info = nest(nl.IFLA_LINKINFO, string(nl.IFLA_INFO_KIND, kind), data)
            name = PROBE if kind == BRIDGE else f"fl-{kind}"
            try:
                channel.ask(nl.RTM_NEWLINK, ours(name) + info, nl.NEW)
            except PermissionError:
                raise
            except OSError:
                yield kind
    yield from _lacking_for_nft()
    with closing(LoopbackGuards()) as guards:
        with suppress(ExceptionGroup):
            guards.apply(Plan(add=(LoopbackGuard(PROBE, routed=False),)))
        if not guards.able:
            yield GUARDS


def _lacking_for_nft() -> Iterator[str]:
    if not has_nf_tables():
        yield NF_TABLES
        return
    try:
        from driver.host.firewall.nft import NftFirewall  # noqa: PLC0415

        with closing(NftFirewall()) as firewall:
            firewall.apply(Plan(add=(Ruleset(),)))
    except (ImportError, OSError):
        yield LIBNFTABLES
    except ExceptionGroup:
        yield NF_TABLES


def _free(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
