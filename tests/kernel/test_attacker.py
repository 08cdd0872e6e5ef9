"""What a container with NET_ADMIN and NET_RAW sends arrives nowhere it should not, per backend.

That each packet is well made is proved by the same packet arriving where it may, or after the
rules are gone.
"""

from contextlib import ExitStack, closing

import pytest

from driver.iptables_backend import Fallback
from driver.things import Element, Plan, diff
from tests.kernel.conftest import flush
from tests.kernel.frames import END, Ear, mac_of, overlay_frame, send, udp
from tests.kernel.sample import HOST, INNER, LAN, WANTED, A, B

pytestmark = pytest.mark.kernel

DOCKER = "198.51.100.1"  # of another program's bridge, docker0
PORT = 8472
SECRET = b"forged"


@pytest.fixture
def stage(lab, firewall):
    """Containers on A, B, INNER and docker0, a LAN host that is a peer, and a real VTEP."""
    firewall.apply(diff(firewall.observe(), WANTED | {Element("tunnels", str(PORT))}))
    for n in (A, B, INNER):
        lab.bridge(n.bridge, str(n.gateway))
    lab.bridge("docker0", f"{DOCKER}/24")
    if isinstance(firewall, Fallback):  # nft can tell a bridge by itself
        firewall.apply(Plan(add=(Element("foreign", '"docker0"'),)))
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
    lab.host.ip(
        f"link add flannel.1 up type vxlan id 1 dev eth0 local {HOST} dstport {PORT} nolearning",
        "addr add 10.2.0.0/32 dev flannel.1",
        "route add 10.2.9.0/24 via 10.2.9.0 dev flannel.1 onlink",
    )
    lab.firewall = firewall
    lab.ears = {"mate": "10.2.0.3", "other": "10.2.0.66", "inner": "10.2.0.130", "lan": LAN}
    with ExitStack() as stack:
        lab.heard = {
            name: stack.enter_context(closing(Ear(getattr(lab, name)))) for name in lab.ears
        }
        yield lab


def arrived(lab):
    """Name those at whom a packet with the secret has arrived since the last time."""
    for ip in lab.ears.values():  # nothing sent before is still under way when these have come
        send(lab.host, ip, 9, END)
    return {name for name, ear in lab.heard.items() if ear.heard(SECRET)}


def forged(lab, target):
    """A frame of the overlay, from a container of another host that never sent it."""
    mac = mac_of(lab.host, "flannel.1")
    return overlay_frame(mac, udp("10.2.9.2", target, 7, SECRET))


GATEWAYS = {"web": "10.2.0.1", "inner": "10.2.0.129", "docker": DOCKER}


@pytest.mark.parametrize("attacker", GATEWAYS)
def test_no_container_forges_frames_of_the_overlay(stage, attacker):
    sender, places = getattr(stage, attacker), (GATEWAYS[attacker], HOST, "10.2.0.65", LAN)
    stage.host.run("nft", "-f", "-", text=LED_THERE)
    if attacker == "inner":  # it has no other route, and with NET_ADMIN it makes one
        stage.inner.ip("route replace default via 10.2.0.129")
    for target in ("10.2.0.66", "10.2.0.130"):
        for place in places:
            send(sender, place, PORT, forged(stage, target))
            send(sender, place, 9999, forged(stage, target))
    assert arrived(stage) == set()
    # a peer may, and the host itself
    send(stage.lan, HOST, PORT, forged(stage, "10.2.0.66"))
    send(stage.host, LAN, PORT, SECRET)
    assert arrived(stage) == {"other", "lan"}
    flush(stage.host)
    send(sender, GATEWAYS[attacker], PORT, forged(stage, "10.2.0.130"))
    assert arrived(stage) == {"inner"}


LED_THERE = f"""
table ip led {{
    chain there {{
        type nat hook prerouting priority -90;
        udp dport 9999 redirect to :{PORT}
    }}
}}
"""


def test_what_is_no_frame_of_this_hosts_overlay_is_let_alone(stage):
    """Containers may have an overlay of their own, with the same port, on one bridge."""
    with stage.mate.listen(PORT, udp=True) as server:
        stage.host.sysctl("bridge/bridge-nf-call-iptables", "1")
        assert stage.web.reach(server, "10.2.0.3", PORT) == "10.2.0.2"


def test_the_overlays_own_bridge_is_let_alone(stage):
    """Machines on a bridge of the host may be peers."""
    stage.firewall.apply(Plan(add=(Element("carriers", '"docker0"'),)))
    send(stage.docker, DOCKER, PORT, forged(stage, "10.2.0.66"))
    assert arrived(stage) == {"other"}
