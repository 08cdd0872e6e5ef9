"""Where containers attack."""

from contextlib import ExitStack, closing

import pytest

from driver.host.firewall.iptables import IptablesFirewall
from driver.model.firewall import ForeignBridge, TunnelPort
from driver.model.objects import Plan, diff
from tests.kernel.firewall.attack import DOCKER, PEER, PORT, meet, overlay
from tests.kernel.frames import Ear
from tests.kernel.sample import HOST, INNER, LAN, WANTED, A, B


@pytest.fixture
def stage(lab, firewall):
    """Containers on A, B, INNER and docker0, a LAN host that is a peer, and a real VTEP."""
    firewall.apply(diff(firewall.observe(), WANTED | {TunnelPort(PORT)}))
    for n in (A, B, INNER):
        lab.bridge(n.bridge, str(n.gateway))
    lab.bridge("docker0", f"{DOCKER}/24")
    if isinstance(firewall, IptablesFirewall):  # nft can tell a bridge by itself
        firewall.apply(Plan(add=(ForeignBridge("docker0"),)))
    lab.web, lab.mate, lab.other, lab.inner, lab.docker = (
        lab.container(bridge, f"{ip}/{length}", gateway)
        for bridge, ip, length, gateway in (
            (A.bridge, "10.2.0.2", 26, "10.2.0.1"),
            (A.bridge, "10.2.0.3", 26, "10.2.0.1"),
            (B.bridge, "10.2.0.66", 26, "10.2.0.65"),
            (INNER.bridge, "10.2.0.130", 26, "10.2.0.129"),
            ("docker0", "198.51.100.2", 24, DOCKER),
        )
    )
    lab.lan = lab.neighbour("eth0", f"{HOST}/24", f"{LAN}/24")
    overlay(lab.host, "10.2.0.0", HOST)
    overlay(lab.lan, "10.2.9.0", LAN)
    lab.lan.ip(f"addr add {PEER}/32 dev lo")
    meet(lab.host, lab.lan, "10.2.9.0", LAN)
    meet(lab.lan, lab.host, "10.2.0.0", HOST, f"src {PEER}")
    lab.firewall = firewall
    lab.ears = {"mate": "10.2.0.3", "other": "10.2.0.66", "inner": "10.2.0.130", "lan": LAN}
    with ExitStack() as stack:
        lab.heard = {
            name: stack.enter_context(closing(Ear(getattr(lab, name)))) for name in lab.ears
        }
        yield lab
