"""IPv6 that a container gives itself: it leads nowhere, whatever the firewall is."""

from contextlib import closing

import pytest

from driver.host.links import Links
from driver.model.objects import diff
from tests.kernel.frames import END, IPV6, Ear, mac_of, packet6, send_raw
from tests.kernel.netlink.sample import ALL, N1, N2

pytestmark = pytest.mark.kernel

SECRET = b"secret"


def test_ipv6_of_containers_ends_at_their_bridge(lab):
    with closing(Links()) as netlink:
        netlink.apply(diff((), ALL))
    host, far = lab.host, lab.neighbour("eth0", "192.0.2.1/24", "192.0.2.9/24")
    sender = lab.container(N1.bridge, "10.2.1.77/24", "10.2.1.1")
    near = lab.container(N2.bridge, "10.2.2.77/24", "10.2.2.1")
    host.sysctl("ipv6/conf/all/forwarding", "1")
    places = {"fd00:2::9": (N2.bridge, near), "fd00:9::9": ("eth0", far)}

    def lead(ip, link, target):
        host.ip(
            f"route add {ip}/128 dev {link}",
            f"neigh add {ip} lladdr {mac_of(target, 'eth0')} dev {link}",
        )

    def arrived(ip, link, target):
        with closing(Ear(target, kind=IPV6)) as ear:
            body = packet6("fd00:1::7", ip, SECRET)
            send_raw(sender, "eth0", mac_of(host, N1.bridge), body, IPV6)
            send_raw(host, link, mac_of(target, "eth0"), END, IPV6)
            return ear.heard(SECRET)

    lead("fd00:9::9", *places["fd00:9::9"])
    assert not any(arrived(ip, *place) for ip, place in places.items())
    for bridge in (N1.bridge, N2.bridge):
        host.sysctl(f"ipv6/conf/{bridge}/disable_ipv6", "0")
    lead("fd00:2::9", *places["fd00:2::9"])
    assert all(arrived(ip, *place) for ip, place in places.items())
