"""What passes Docker's FORWARD path with our rules, without them, and while they come and go.

On each backend of the firewall, with the policy that Docker sets.
"""

import json
import socket
import struct
import threading
from contextlib import closing

import pytest

from driver.host.firewall.forward_gate import ForwardGates
from driver.host.firewall.iptables_rendering import CHAIN_PREFIX
from driver.host.firewall.mark import JUDGED
from driver.model.firewall import ForwardGate
from driver.model.objects import Plan
from tests.kernel.namespaces import LIMIT_S
from tests.kernel.sample import HOST, LAN, A, B

pytestmark = pytest.mark.kernel

VARIANTS = {"nft": "nft", "iptables-nft": "nft", "iptables-legacy": "legacy"}
SO_MARK, RCVBUF_FORCE = 36, 33


class Site:
    """Networks A (two containers) and B, a LAN, our rules, and Docker's chain and policy."""

    def __init__(self, lab, firewall):
        self.host, self.firewall = lab.host, firewall
        self.variant = VARIANTS[firewall.name]
        for n in (A, B):
            lab.bridge(n.bridge, str(n.gateway))
        self.web = lab.container(A.bridge, "10.2.0.2/26", "10.2.0.1")
        self.mate = lab.container(A.bridge, "10.2.0.3/26", "10.2.0.1")
        self.other = lab.container(B.bridge, "10.2.0.66/26", "10.2.0.65")
        self.lan = lab.neighbour("eth0", f"{HOST}/24", f"{LAN}/24")
        self.lan.ip(f"route add 10.2.0.0/16 via {HOST}")
        self.peer = lab.neighbour("flannel.1", "10.2.0.0/32", "10.2.9.2/24")
        lab.host.ip("route add 10.2.9.0/24 dev flannel.1")
        self.peer.ip("route add 10.2.0.0/24 via 10.2.0.0 dev eth0 onlink")
        self("-N", "DOCKER-USER")
        self("-I", "FORWARD", "-j", "DOCKER-USER")

    def __call__(self, *arguments):
        self.host.run(f"iptables-{self.variant}", "-w", *arguments)

    def gate(self, bridged=True):
        gate = ForwardGate(self.variant, bridged)
        with self.host:
            ForwardGates().apply(Plan(add=(gate,)))
            assert gate in ForwardGates().observe()

    def lose_table(self):
        """Take our rules away, and leave others', among them the gate."""
        if self.firewall.name == "nft":
            self.host.run("nft", "delete", "table", "inet", "docker_flannel")
            return
        for table in ("raw", "mangle", "nat"):
            self("-t", table, "-F")


@pytest.fixture
def site(lab, loaded):
    made = Site(lab, loaded)
    made("-P", "FORWARD", "DROP")
    return made


def test_what_our_rules_judged_passes(site):
    site.gate()
    with site.lan.listen(80) as lan, site.web.listen(80) as web, site.other.listen(80) as other:
        assert site.web.reach(lan, LAN, 80) == HOST
        assert site.lan.reach(web, HOST, 8080) == LAN
        assert site.mate.reach(web, "10.2.0.2", 80) == "10.2.0.3"
        assert site.other.reach(web, HOST, 8080) == "10.2.0.66"
        assert site.web.cannot_reach(other, "10.2.0.66", 80)


@pytest.mark.parametrize("policy", ["DROP", "ACCEPT"])
def test_without_our_rules_nothing_begins(site, policy):
    site("-P", "FORWARD", policy)
    site.gate()
    site.lose_table()
    with (
        site.lan.listen(80) as lan,
        site.web.listen(80) as web,
        site.web.listen(53, udp=True) as udp,
        site.other.listen(80) as other,
    ):
        for inside, server, ip, port in (
            (site.web, other, "10.2.0.66", 80),
            (site.other, web, "10.2.0.2", 80),
            (site.lan, web, "10.2.0.2", 80),
            (site.lan, udp, "10.2.0.2", 53),
            (site.web, lan, LAN, 80),
        ):
            assert inside.cannot_reach(server, ip, port)
        assert site.mate.reach(web, "10.2.0.2", 80) == "10.2.0.3", "its own network is open"


@pytest.mark.parametrize("who", ["mate", "peer"])
def test_what_had_begun_outlives_our_rules(site, who):
    """On one bridge, and from another host: those flows need no translation."""
    site.gate()
    with site.web.listen(80) as web:
        with getattr(site, who):
            client = socket.create_connection(("10.2.0.2", 80), LIMIT_S)
        connection, _ = web.accept()
        with client, connection:
            site.lose_table()
            for one, other in ((client, connection), (connection, client)):
                one.send(b"still")
                assert other.recv(10) == b"still"
            assert site.peer.cannot_reach(web, "10.2.0.2", 80)


def test_a_container_cannot_bring_the_mark(site):
    site.gate()
    site.lose_table()
    with site.other.listen(53, udp=True) as udp, site.web:
        forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        forger.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("=I", 0xFFFFFFFF))
        forger.sendto(b"x", ("10.2.0.66", 53))
        udp.settimeout(0.4)
        with forger, pytest.raises(TimeoutError):
            udp.recv(10)


HOOKS = {"forward": 5, "input": 5, "postrouting": -149}
MARKED = f"meta mark and {JUDGED} != 0 counter"
COUNTERS = "".join(
    f"chain {hook} {{ type filter hook {hook} priority {priority}; {MARKED}; }}\n"
    for hook, priority in HOOKS.items()
)


def test_the_mark_ends_with_the_filters(site):
    site.gate()
    site.host.run("nft", "-f", "-", text=f"table inet watch {{\n{COUNTERS}}}\n")
    with site.lan.listen(80) as lan, site.web.listen(80) as web:
        assert site.web.reach(lan, LAN, 80) == HOST
        assert site.host.reach(web, "127.0.0.1", 8080) == "10.2.0.1"
    listed = json.loads(site.host.run("nft", "-j", "list", "table", "inet", "watch"))["nftables"]
    rules = [entry["rule"] for entry in listed if "rule" in entry]
    seen = {rule["chain"]: rule["expr"][-1]["counter"]["packets"] for rule in rules}
    assert seen["forward"] > 0
    assert (seen["input"], seen["postrouting"]) == (0, 0)


def test_the_gate_of_an_earlier_version_gives_way_without_a_gap(site):
    """A client opens one flow after the other from the LAN while the gate is replaced."""
    name = f"{CHAIN_PREFIX}FORWARD"
    site("-N", name)
    for side in "io":
        site("-A", name, f"-{side}", "fl-+", "-j", "ACCEPT")
    site("-I", "DOCKER-USER", "-m", "comment", "--comment", "docker-flannel", "-j", name)
    stop, sent = threading.Event(), list[int]()

    def send():
        with site.lan:
            while not stop.is_set() or len(sent) < 100:
                with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
                    client.sendto(b"x", (HOST, 8053))
                    sent.append(1)

    with site.web.listen(53, udp=True) as server:
        server.setsockopt(socket.SOL_SOCKET, RCVBUF_FORCE, 1 << 26)
        sender = threading.Thread(target=send)
        sender.start()
        site.gate()
        stop.set()
        sender.join()
        got = 0
        while got < len(sent):
            server.recv(10)
            got += 1
