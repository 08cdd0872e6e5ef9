"""Which of the host's interfaces leads to the other hosts."""

from contextlib import closing
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.errors import Unavailable
from driver.host import surroundings
from driver.host.netlink.channel import Channel
from driver.host.underlay import external
from driver.model.facts import External
from driver.model.records import replace
from tests.kernel.overlays.sample import ETH0, OURS

pytestmark = pytest.mark.kernel


def look():
    with closing(Channel()) as channel:
        return surroundings.look(channel)


@pytest.fixture
def found(host):
    """What is listed of a host with two uplinks and a default route by each."""
    host.ip(
        "link add eth1 mtu 9000 up type veth peer name far1",
        "link set far1 up",
        "addr add 169.254.3.4/16 dev eth1 scope link",
        "addr add 10.0.0.5/24 dev eth1 valid_lft 1000 preferred_lft 1000",
        "addr add 10.0.0.6/24 dev eth1",
        "addr add 10.0.0.7/24 dev eth1",
        "route add 10.9.0.0/16 dev eth1 scope link",
        "route add 10.8.0.0/16 via 10.0.0.1",
        "route add default via 192.168.77.1 metric 20",
        "route add default via 10.0.0.1 metric 10",
        f"route add 10.7.0.0/16 dev eth1 scope link {OURS}",
    )
    return look()


ETH1 = External(
    "eth1",
    IPv4Address("10.0.0.6"),
    9000,
    tuple(map(IPv4Network, ("10.0.0.0/24", "10.9.0.0/16", "169.254.0.0/16"))),
)


@pytest.mark.parametrize(
    ("iface", "public_ip", "wanted"),
    [
        ("eth0", None, ETH0),
        ("eth1", None, ETH1),
        ("192.168.77.11", None, ETH0),
        ("10.0.0.5", None, replace(ETH1, ip=IPv4Address("10.0.0.5"))),
        ("eth1", "203.0.113.9", ETH1),
        (None, "192.168.77.11", ETH0),
        (None, "10.0.0.7", replace(ETH1, ip=IPv4Address("10.0.0.7"))),
        (None, None, ETH1),
        ("", None, ETH1),
    ],
)
def test_external_interface(found, iface, public_ip, wanted):
    assert external(found, iface, public_ip and IPv4Address(public_ip)) == wanted


@pytest.mark.parametrize(
    ("iface", "public_ip", "words"),
    [
        ("eth7", None, "FLANNELD_IFACE eth7 is no interface of this host"),
        ("10.1.1.1", None, "FLANNELD_IFACE 10.1.1.1 is on no interface of this host"),
        ("far", None, "interface far to the underlay has no IPv4 address"),
        (
            None,
            "203.0.113.9",
            "FLANNELD_PUBLIC_IP 203.0.113.9 is on no interface of this host; "
            "name the interface with FLANNELD_IFACE",
        ),
    ],
)
def test_no_external_interface(found, iface, public_ip, words):
    with pytest.raises(Unavailable) as caught:
        external(found, iface, public_ip and IPv4Address(public_ip))
    assert str(caught.value) == words


def test_no_default_route(host):  # noqa: ARG001
    with pytest.raises(Unavailable, match="no default route"):
        external(look(), None, None)
