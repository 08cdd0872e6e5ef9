"""Nouns with plausible values, for tables."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from driver.model.records import (
    Claim,
    Endpoint,
    Freed,
    Hold,
    Lease,
    Network,
    Overlay,
    Peer,
    Pool,
    PortMapping,
    Record,
    State,
    Vtep,
)

NOW = 1_700_000_000.0
NET, OTHER = "a" * 64, "b" * 64
END, END2 = "c" * 64, "d" * 64
LEASE = Lease(IPv4Network("10.2.0.0/16"), IPv4Network("10.2.3.0/24"), 1450, "standalone")
POOL = Pool("10.2.3.0/27/beef", IPv4Network("10.2.3.0/27"), None, None, NOW)
WEB = PortMapping("tcp", IPv4Address("0.0.0.0"), 8080, 80)
BESIDE = IPv4Interface("172.18.0.2/16")
DNS = PortMapping("udp", IPv4Address("192.168.1.5"), 53, 5353)


def lease(subnet: str, network: str = "10.2.0.0/16", source: str = "standalone") -> Lease:
    return Lease(IPv4Network(network), IPv4Network(subnet), 1450, source)


def pool(cidr: str = "10.2.3.0/27", serial: str = "beef", **changes: Any) -> Pool:
    fields = {"sub": None, "cursor": None, "since": NOW, **changes}
    return Pool(f"{cidr}/{serial}", IPv4Network(cidr), **fields)


def hold(ip: str, why: Any = "endpoint", of: str = POOL.id, **changes: Any) -> Hold:
    return Hold(of, IPv4Address(ip), why, **{"since": NOW, **changes})


def network(net_id: str = NET, **changes: Any) -> Network:
    fields = {
        "pool": POOL.id,
        "gateway": IPv4Interface("10.2.3.1/27"),
        "mtu": 1450,
        "internal": False,
        "masquerade": True,
        "interface_prefix": "eth",
        **changes,
    }
    return Network(net_id, **fields)


def endpoint(end_id: str = END, ip: str = "10.2.3.2/27", **changes: Any) -> Endpoint:
    fields = {"network": NET, "mac": "02:42:0a:02:03:02", "since": NOW, **changes}
    return Endpoint(end_id, ip=IPv4Interface(ip), **fields)


OVERLAY = Overlay(
    IPv4Network("10.2.0.0/16"), 24, IPv4Address("10.2.1.0"), IPv4Address("10.2.255.0"), "vxlan"
)
VTEP = Vtep(IPv4Address("192.0.2.11"), "6a:00:00:00:00:11")
PEER = Peer(IPv4Network("10.2.9.0/24"), IPv4Address("192.0.2.12"), "vxlan", "6a:00:00:00:00:12")
RECORDS: list[Record] = [
    LEASE,
    OVERLAY,
    VTEP,
    PEER,
    Peer(IPv4Network("10.2.10.0/24"), IPv4Address("192.0.2.13"), "host-gw"),
    POOL,
    pool("10.2.3.32/27", sub=IPv4Network("10.2.3.48/28"), cursor=IPv4Address("10.2.3.50")),
    pool("10.2.3.64/27", automatic=True),
    pool("10.2.3.128/27").owned("network", NET),
    Freed(IPv4Network("10.2.3.96/27"), NOW + 0.25),
    hold("10.2.3.1", "gateway"),
    hold("10.2.3.9", "aux"),
    hold("10.2.3.2", released=True),
    Claim(POOL.id, IPv4Address("10.2.3.2"), NOW),
    Claim(POOL.id, IPv4Address("10.2.3.50"), NOW, "db-1", named=True, freed=NOW + 0.5),
    network(),
    network("f" * 64, docker_gateway=IPv4Interface("172.18.0.1/16")),
    network(
        OTHER, internal=True, masquerade=False, interface_prefix="net", mtu=9000, publish="docker"
    ),
    endpoint(),
    endpoint(END2, sandbox="/var/run/docker/netns/é\n'\"", ports=(WEB, DNS), docker_ip=BESIDE),
]


def state_of(*records: Record) -> State:
    """Put records together as a journal does."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        rows.setdefault(record.kind, {})[record.id] = record
    return State(
        rows.get("lease", {}).get("own"),
        rows.get("overlay", {}).get("own"),
        rows.get("vtep", {}).get("own"),
        rows.get("peer", {}),
        pools=rows.get("pool", {}),
        freed=rows.get("freed", {}),
        holds=rows.get("hold", {}),
        claims=rows.get("claim", {}),
        networks=rows.get("network", {}),
        endpoints=rows.get("endpoint", {}),
    )


def blocks(*cidrs: str) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(cidr) for cidr in cidrs)
