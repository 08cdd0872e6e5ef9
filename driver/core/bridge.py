"""The links, addresses and settings that the lease, a network and an endpoint need. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from driver.model.facts import Facts
from driver.model.objects import (
    Bridge,
    HostObject,
    LinkAddress,
    SandboxAddress,
    Sysctl,
    Veth,
)
from driver.model.records import ANY, Endpoint, Lease, Network


def mac_for(ip: IPv4Address) -> str:
    """Derive a locally administered MAC from an address.

    An address that comes back then carries the MAC its neighbours still remember.
    """
    return "02:42:" + ":".join(f"{byte:02x}" for byte in ip.packed)


def plan_network(network: Network) -> Iterator[HostObject]:
    """Yield a network's bridge with its gateway addresses.

    IPv6 is off, since the firewall's rules are for IPv4 only: by IPv6, containers could reach the
    host and beyond, or become the host's router (CVE-2020-13401).
    """
    digest = hashlib.sha256(network.id.encode()).hexdigest()
    mac = "02:66:" + ":".join(digest[i : i + 2] for i in range(0, 8, 2))
    yield Bridge(network.bridge, mac, network.mtu, network.id)
    yield LinkAddress(network.bridge, network.gateway)
    if network.docker_gateway:
        yield LinkAddress(network.bridge, network.docker_gateway)
    yield Sysctl(network.bridge, "ipv6", "disable_ipv6", "1")


def plan_forwarding(links: Iterable[str], facts: Facts) -> Iterator[Sysctl]:
    """Yield the settings that forward packets arriving on these links, if the plugin sets them."""
    for link in links if facts.forwards else ():
        yield Sysctl(link, "ipv4", "forwarding", "1")


def on_localhost(endpoint: Endpoint) -> bool:
    """Whether one of its ports is published on 127.0.0.1, or on all addresses of the host."""
    return any(port.host_ip == ANY or port.host_ip.is_loopback for port in endpoint.ports)


def plan_endpoint(endpoint: Endpoint, network: Network) -> Iterator[HostObject]:
    """Yield an endpoint's veth pair. Hairpin mode lets a container reach its own published port."""
    yield Veth(
        endpoint.host_end,
        network.bridge,
        network.mtu,
        hairpin=bool(endpoint.ports),
        owner=endpoint.id,
        container_end=endpoint.container_end,
        mac=endpoint.mac,
        ips=(endpoint.ip.ip, *([endpoint.docker_ip.ip] if endpoint.docker_ip else [])),
    )


def plan_sandbox(endpoint: Endpoint, network: Network, lease: Lease) -> Iterator[SandboxAddress]:
    """Yield a container's lease address, if Docker gave it another one."""
    if endpoint.docker_ip and endpoint.sandbox:
        out = not network.internal
        yield SandboxAddress(
            endpoint.host_end,
            endpoint.sandbox,
            endpoint.ip,
            overlay=lease.network if out else None,
            via=network.gateway.ip if out else None,
        )
