"""An address comes back with another MAC: who had the old one in mind reaches the new at once."""

from contextlib import closing, suppress
from ipaddress import IPv4Address

import pytest

from driver.core.bridge import plan_endpoint, plan_network
from driver.host.announce import Announcer, announcement
from driver.host.links import Links
from driver.model.objects import Plan
from driver.model.records import replace
from tests.bed import wait_for
from tests.kernel.netlink.sample import N1, endpoint

pytestmark = pytest.mark.kernel

A, B = endpoint(N1, 1), endpoint(N1, 2)
ANEW = replace(endpoint(N1, 3), ip=A.ip, mac="02:00:00:00:00:99")
IP = str(A.ip.ip)
SOON_S = 5.0  # a bridge may take a second for a new port; what has the old MAC in mind, 8 to 40


class Site:
    """A network on the host, and containers that come and go as with Docker."""

    def __init__(self, host, namespace, sides):
        self.host, self._namespace, self._sides = host, namespace, sides
        netlink = sides[0]
        netlink.apply(Plan(add=tuple(plan_network(N1))))

    def attach(self, end):
        veth = next(plan_endpoint(end, N1))
        for side in self._sides:
            side.apply(Plan(add=(veth,)))
        return veth

    def enter(self, end):
        """Docker puts the interface into its sandbox."""
        box = self._namespace()
        self.host.ip(f"link set {end.container_end} netns {box.path}")
        box.ip(
            f"link set {end.container_end} name eth0",
            f"addr add {end.ip} dev eth0",
            "link set eth0 up",
        )
        return box

    def remove(self, veth):
        for side in reversed(self._sides):
            side.apply(Plan(remove=(veth,)))

    def start(self, end):
        veth = self.attach(end)
        return veth, self.enter(end)


@pytest.fixture
def site(host, namespace):
    with closing(Links()) as netlink, closing(Announcer()) as announcer:
        yield Site(host, namespace, [netlink, announcer])


def reaches(node, ip):
    """Whether an answer comes within a second."""
    with suppress(AssertionError):
        node.run("ping", "-c", "1", "-W", "1", "-w", "1", ip)
        return True
    return False


def neighbour(node, ip, link):
    """Which MAC a node has in mind for an address, "" for none."""
    shown = node.run("ip", "neigh", "show", ip, "dev", link).split()
    return shown[shown.index("lladdr") + 1] if "lladdr" in shown else ""


def warm(site, box):
    for node, link in ((box, "eth0"), (site.host, N1.bridge)):
        wait_for(lambda: reaches(node, IP), "the first container")
        assert neighbour(node, IP, link) == A.mac


def test_the_next_with_this_address_is_reached_at_once(site):
    veth, _ = site.start(A)
    _, box = site.start(B)
    warm(site, box)
    site.remove(veth)
    assert neighbour(site.host, IP, N1.bridge) == ""
    assert neighbour(box, IP, "eth0") == A.mac
    site.start(ANEW)
    assert neighbour(box, IP, "eth0") == ANEW.mac
    for node in (box, site.host):
        wait_for(lambda: reaches(node, IP), "the second container", SOON_S)


def test_the_host_knows_the_new_one_although_nobody_told_that_the_old_one_went(site):
    _, _ = site.start(A)
    _, box = site.start(B)
    warm(site, box)
    site.host.ip(f"link del {A.host_end}")
    assert neighbour(site.host, IP, N1.bridge) == A.mac
    site.start(ANEW)
    wait_for(lambda: reaches(site.host, IP), "the second container", SOON_S)


def test_the_bridge_learns_no_place_from_it_and_no_stranger_is_remembered(site):
    _, box = site.start(B)
    wait_for(lambda: reaches(box, str(N1.gateway.ip)), "the gateway")
    site.attach(ANEW)
    fdb = site.host.run("bridge", "fdb", "show", "br", N1.bridge)
    assert B.mac in fdb
    assert ANEW.mac not in fdb
    assert neighbour(box, IP, "eth0") == ""


def test_without_a_bridge_or_a_veth_all_goes_on(site):
    veth = replace(next(plan_endpoint(A, N1)), bridge="fl-nowhere")
    for plan in (Plan(add=(veth,)), Plan(remove=(veth,)), Plan()):
        site._sides[1].apply(plan)
    assert site._sides[1].observe() == frozenset()


def test_an_announcement_is_a_gratuitous_request():
    shown = announcement("02:42:0a:02:00:05", IPv4Address("10.2.0.5")).hex()
    assert shown == (
        "ffffffffffff" "02420a020005" "0806" "0001" "0800" "06" "04" "0001"
        "02420a020005" "0a020005" "000000000000" "0a020005"
    )  # fmt: skip
