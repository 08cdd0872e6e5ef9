"""Two networks and three endpoints, as the objects the netlink adapter carries."""

import json
from ipaddress import IPv4Interface, IPv4Network

from driver.core.bridge import mac_for, plan_endpoint, plan_network
from driver.model.objects import Bridge, LinkAddress, Sysctl, UnreachableRoute, Veth, diff
from driver.model.records import Endpoint, Lease, Network, PortMapping
from tests.kernel.sample import pick

LEASE = Lease(IPv4Network("10.2.0.0/16"), IPv4Network("10.2.0.0/20"), 1450, "standalone")
PORTS = (PortMapping("tcp", IPv4Interface("0.0.0.0").ip, 8080, 80),)


def network(number):
    gateway = IPv4Interface(f"10.2.{number}.1/24")
    return Network(f"{number:02x}" * 32, f"p{number}", gateway, 1450, False, True, "eth")


def endpoint(net, number, ports=()):
    ip = IPv4Interface(f"10.2.{net.gateway.ip.packed[2]}.{number + 1}/24")
    object_id = f"{net.id[:2]}{number:04x}".ljust(64, "e")
    return Endpoint(object_id, net.id, ip, mac_for(ip.ip), 0.0, ports=ports)


N1, N2 = network(1), network(2)
E1, E2, E3 = endpoint(N1, 1), endpoint(N1, 2, PORTS), endpoint(N2, 1)
NETWORKS = (UnreachableRoute(LEASE.subnet), *plan_network(N1), *plan_network(N2))
V1, V2, V3 = (pick(Veth, plan_endpoint(e, n)) for e, n in ((E1, N1), (E2, N1), (E3, N2)))
ALL = frozenset((*NETWORKS, V1, V2, V3))
BRIDGE, ADDRESS = pick(Bridge, plan_network(N1)), pick(LinkAddress, plan_network(N1))
NO_IPV6 = pick(Sysctl, plan_network(N1))


def links(host):
    return {link["ifname"] for link in json.loads(host.run("ip", "-j", "link")) if "ifname" in link}


def repair(netlink, want=ALL):
    """See drift, repair it, and see none any more; give what the drift was."""
    plan = diff(netlink.observe(), want)
    netlink.apply(plan)
    assert not diff(netlink.observe(), want)
    return plan
