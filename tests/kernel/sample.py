"""Two networks and an internal one, with containers, as the objects the nft table has of them."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeVar

from driver.core import firewall, strays
from driver.host.firewall.nft import NftFirewall
from driver.model.facts import Facts
from driver.model.firewall import PortMap, Ruleset
from driver.model.records import ANY, Endpoint, Lease, Network, PortMapping

TABLE = Ruleset()
LEASE = Lease(IPv4Network("10.2.0.0/16"), IPv4Network("10.2.0.0/24"), 1450, "standalone")
LAN = "192.0.2.9"
HOST = "192.0.2.1"


T = TypeVar("T")


def pick(kind: type[T], objects: Iterable[object]) -> T:
    """Return the only one of its kind."""
    [found] = (item for item in objects if isinstance(item, kind))
    return found


def network(letter, gateway, internal=False):
    return Network(letter * 64, "pool", IPv4Interface(gateway), 1450, internal, True, "eth")


def endpoint(letter, on, ip, *ports):
    return Endpoint(letter * 64, on.id, IPv4Interface(ip), "", 0.0, ports=ports)


def port(host_port, target, proto="tcp", ip="0.0.0.0"):
    return PortMapping(proto, IPv4Address(ip), host_port, target)


A = network("a", "10.2.0.1/26")
B = network("b", "10.2.0.65/26")
INNER = network("c", "10.2.0.129/26", internal=True)
WEB = endpoint(
    "1",
    A,
    "10.2.0.2/26",
    port(8080, 80),
    port(8053, 53, "udp"),
    port(8081, 80, ip="127.0.0.1"),
    port(8082, 80, ip=HOST),
)
OTHER = endpoint("2", B, "10.2.0.66/26", port(9999, 99, "sctp"), port(8080, 81, "udp", HOST))


def wanted(*parts):
    return {t for part in parts for t in part if isinstance(t, NftFirewall.kinds)}


WANTED = wanted(
    firewall.plan_base(
        LEASE, None, Facts(uplinks=frozenset({"br0", "vmbr1"}), gates=frozenset({"nft"}))
    ),
    strays.plan_rules(LEASE, (), Facts()),
    *(firewall.plan_network_rules(n) for n in (A, B, INNER)),
    *(firewall.plan_ports(e) for e in (WEB, OTHER)),
)
ONE = PortMap("tcp", ANY, 8080, IPv4Address("10.2.0.2"), 80, "1" * 64)
