"""What a host with an overlay, two networks and two ports wants of the firewall."""

from __future__ import annotations

from ipaddress import IPv4Address

from driver.core import firewall
from driver.model.facts import External, Facts
from driver.model.objects import HostObject
from driver.model.records import replace
from tests.unit.sample import DNS, END2, LEASE, OTHER, OVERLAY, PEER, WEB, endpoint, network

DIRECT = replace(OVERLAY, backend="host-gw")
FACTS = Facts(
    uplinks=frozenset({"br-lan"}),
    foreign=frozenset({"docker0"}),
    firewall="iptables-nft",
    external=External("eth0", IPv4Address("192.0.2.1"), 1500),
)


def objects() -> list[HostObject]:
    return [
        *firewall.plan_base(LEASE, DIRECT, FACTS),
        *firewall.plan_peers([PEER]),
        *firewall.plan_network_rules(network()),
        *firewall.plan_network_rules(network(OTHER, internal=True)),
        *firewall.plan_ports(endpoint(END2, ports=(WEB, DNS))),
    ]
