"""What shows that a flanneld has the network, and what is then not the plugin's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from driver.core.desire import desire, left_alone
from driver.model.facts import External, Facts, Flanneld
from driver.model.objects import (
    Bridge,
    Fdb,
    HostObject,
    LinkAddress,
    Neighbour,
    PeerRoute,
    Sysctl,
    Vxlan,
)
from driver.model.records import Lease, Overlay, State, replace
from tests.unit.sample import OVERLAY, PEER, VTEP

FLANNEL_1 = ("flannel.1", 1, 8472)
GATEWAYS = replace(OVERLAY, backend="host-gw")
OWN = frozenset({("flannel.1", "02:00:00:00:00:01")})


@pytest.mark.parametrize(
    ("devices", "process", "overlay", "found"),
    [
        ({FLANNEL_1}, 0, OVERLAY, "the device flannel.1"),
        ({FLANNEL_1}, 7, OVERLAY, "the device flannel.1"),
        ({FLANNEL_1}, 0, None, "the device flannel.1"),
        ({FLANNEL_1}, 0, GATEWAYS, "the device flannel.1"),
        ({("vx", 1, 8472)}, 0, OVERLAY, "the device vx of VNI 1"),
        ({("vx", 1, 8472)}, 0, GATEWAYS, ""),
        ({("vx", 1, 8472)}, 0, None, ""),
        ({("vx", 1, 4789)}, 0, OVERLAY, ""),
        (set(), 7, OVERLAY, "the process 7"),
        (set(), 7, None, "the process 7"),
        # of another flannel network
        ({("flannel.2", 2, 8472)}, 7, OVERLAY, ""),
        ({("vx", 5, 4789)}, 7, OVERLAY, "the process 7"),
        (set(), 0, OVERLAY, ""),
    ],
)
def test_signs(
    devices: set[tuple[str, int, int]], process: int, overlay: Overlay | None, found: str
) -> None:
    assert Flanneld(frozenset(devices), process=process).sign(overlay) == found


def test_one_that_comes_later_joins() -> None:
    later = Flanneld(own=OWN, process=7)
    assert later.joined(OVERLAY)
    assert not later.has(OVERLAY)
    assert Flanneld(process=7).joined(GATEWAYS)
    for seen in (Flanneld(process=7), Flanneld(frozenset({FLANNEL_1}))):
        assert seen.has(OVERLAY)
    assert not Flanneld(own=OWN).has(OVERLAY)
    assert Flanneld(frozenset({("vx", 1, 8472)}), OWN, 7).has(OVERLAY)


def test_the_overlay_of_a_flanneld_is_not_made() -> None:
    lease = Lease(OVERLAY.network, IPv4Network("10.2.3.0/24"), 1450, "etcd")
    state = State(lease, OVERLAY, VTEP, {PEER.id: PEER})
    here = Facts(external=External("eth0", IPv4Address("192.0.2.11"), 1500))
    assert {type(t) for t in desire(state, here)} >= {Vxlan, Neighbour, Fdb, PeerRoute}
    assert not desire(state, replace(here, flanneld=Flanneld(frozenset({FLANNEL_1}))))
    assert not desire(state, replace(here, flanneld=Flanneld(process=7)))
    later = replace(here, flanneld=Flanneld(own=OWN, process=7))
    assert desire(state, later) == desire(state, here)


def test_what_bears_our_mark_but_is_a_flannelds_is_left_alone() -> None:
    ip, mac, net = IPv4Address("10.2.7.0"), "02:00:00:00:00:07", IPv4Network("10.2.7.0/24")
    bridge = Bridge("fl-1", mac, 1450, "n"), LinkAddress("fl-1", IPv4Interface("10.2.3.1/27"))
    theirs = (
        Vxlan("flannel.1", 1, 8472, ip, "eth0", mac, 1450, gbp=False, learning=False),
        LinkAddress("flannel.1", IPv4Interface("10.2.3.0/32")),
        Sysctl("flannel.1", "ipv6", "accept_ra", "0"),
        Neighbour("flannel.1", ip, mac),
        Fdb("flannel.1", mac, ip),
        PeerRoute(net, ip, "flannel.1", onlink=True),
        PeerRoute(net, ip, "eth0", onlink=False),
    )
    ours = frozenset[HostObject](bridge)
    all_ = ours | frozenset[HostObject](theirs)
    lease = Lease(OVERLAY.network, net, 1450, "etcd")
    seen, nobody = (Facts(flanneld=Flanneld(own=OWN, process=pid)) for pid in (7, 0))
    assert left_alone(all_, replace(lease, source="subnet-file"), nobody) == ours
    assert left_alone(all_, None, seen) == ours
    assert left_alone(all_, None, nobody) == all_
    assert left_alone(all_, lease, seen) == all_
