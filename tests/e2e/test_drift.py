"""Whatever is changed from outside is put back in moments, and the log says so in one line."""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Iterator

import pytest

from driver.model.objects import RANK, noun
from tests.bed import wait_for
from tests.e2e.drift_cases import CASES, EXEMPT, Case, attributes, interleaved
from tests.e2e.helpers import container, enter, inspect, network, status, web
from tests.e2e.overlay import LEASES, World, empty_world, lease, mac

EVENT_S = 10  # far less than the 30 s of the timer: something woke the pass
PEER, PEER_MAC, PEER_IP = "10.2.240.0/24", "02:00:00:00:00:77", "192.0.2.77"
SHOWN = """
ip -o link show type bridge | grep -v docker0; ip -d -o link show type vxlan
ip -o link show type veth; grep . /sys/class/net/flh*/brport/hairpin_mode
ip -4 -o addr; ip route show table main; ip neigh show nud permanent dev flannel.1
bridge fdb show dev flannel.1; tc filter show dev {bridge} ingress | head -1
nft -s list table inet docker_flannel; iptables -S DKFLANNEL-FORWARD; iptables -S DOCKER-USER
cd /proc/sys/net; grep . ipv4/conf/{bridge}/* ipv4/conf/flannel.1/* ipv4/conf/all/forwarding
grep . ipv6/conf/{bridge}/accept_ra ipv6/conf/flannel.1/accept_ra
"""
DIFFER = r"^\d+: |@if\d+|elements = |[{},]"  # numbers of links, and places in sets


class Site:
    """A host of an overlay with one peer, which is only a lease, and a published port."""

    def __init__(self, world: World) -> None:
        self.world, self.host = world, world.add("drift")
        host = self.host
        block = network(host, "app")
        address = web(host, "web", "app", "-p", "8080:80")
        endpoint = inspect(host, "container", "web")["NetworkSettings"]["Networks"]["app"]
        bridge = f"fl-{inspect(host, 'network', 'app')['Id'][:12]}"
        subnet = lease(host)["subnet"]
        self.names = {
            "bridge": bridge,
            "veth": f"flh{endpoint['EndpointID'][:12]}",
            "vtep": "flannel.1",
            "vtep_": "flannel/1",  # as sysctl has it
            "mac": mac(host, "flannel.1"),
            "here": host.address,
            "gateway": f"{block[1]}/{block.prefixlen}",
            "block": str(block),
            "address": address,
            "lease": subnet,
            "first": subnet.partition("/")[0],
            "peer": PEER,
            "peer_gateway": PEER.partition("/")[0],
            "peer_mac": PEER_MAC,
            "more": "10.2.241.0",
        }
        host.docker("network", "create", "-d", "flannel", "plain")
        container(host, "plain", "plain")
        self.names["plain"] = str(inspect(host, "container", "plain")["State"]["Pid"])
        shown = host.run(*enter(host, "plain"), "ip", "-4", "-o", "addr").stdout
        self.names["plain_ip"] = next(w for w in shown.split() if w.startswith("10.2."))
        wait_for(lambda: PEER_MAC in self.shown(), "the peer")
        wait_for(lambda: host.reaches(f"http://{host.address}:8080/", 2), "the port")
        self.whole = self.shown()

    def shown(self) -> str:
        """Return all that the plugin looks after, as the usual programs show it."""
        script = SHOWN.format(bridge=self.names.get("bridge", ""))
        into = f"nsenter -n -t {self.names['plain']}" if "plain" in self.names else ":"
        script += f"{into} ip -4 -o addr; {into} ip route show table 91; {into} ip rule"
        text = self.host.run("sh", "-c", script, check=False).stdout
        text = re.sub(DIFFER, "", text, flags=re.MULTILINE)
        return "\n".join(sorted(line.strip() for line in text.splitlines()))

    def is_whole(self) -> bool:
        """Whether all is as it was at first; the test's output shows what is not."""
        now, whole = self.shown().splitlines(), self.whole.splitlines()
        differ = [line for line in difflib.ndiff(whole, now) if line[0] in "+-"]
        print("\n".join(differ))  # noqa: T201
        return not differ

    def told(self) -> list[str]:
        """Return what the log says of repairs."""
        return [line for line in self.host.plugin_log().splitlines() if " pass: " in line]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with empty_world("vxlan") as world:
        data = {"VNI": 1, "VtepMAC": PEER_MAC}
        value = {"PublicIP": PEER_IP, "BackendType": "vxlan", "BackendData": data}
        world.etcdctl("put", LEASES + PEER.replace("/", "-"), json.dumps(value))
        yield Site(world)


def test_every_attribute_has_a_case() -> None:
    """A new kind or field of `objects.py` needs one."""
    have = {(case.kind, case.field) for case in CASES}
    assert have | EXEMPT.keys() == attributes()
    assert not have & EXEMPT.keys()


@pytest.mark.parametrize("case", interleaved(), ids=lambda case: case.id)
def test_it_heals_at_once(site: Site, case: Case) -> None:
    before = len(site.told())
    site.host.run("sh", "-c", case.command.format(**site.names))
    began = time.monotonic()
    wait_for(lambda: len(site.told()) > before, "a line in the log", EVENT_S, every_s=0.02)
    took = time.monotonic() - began
    print(f"healed in {took:.1f} s: {case.id}")  # noqa: T201
    wait_for(site.is_whole, "all to be as it was", EVENT_S)
    told = site.told()[before:]
    assert 1 <= len(told) <= case.steps, told
    assert all("repaired" in line for line in told)
    words = {kind.__name__: noun(kind) for kind in RANK}[case.kind]
    assert re.search(rf"\b\d+ {words}\b", "\n".join(told))


def test_nothing_is_wrong_in_the_end_nor_after_a_start(site: Site) -> None:
    host = site.host
    wait_for(lambda: status(host)["problems"] == [], "all problems to be over")
    for end in (host.stop_plugin, host.kill_plugin):
        end()
        before = len(site.told())
        site.world.start_plugin(host)
        assert site.told()[before:] == ["INFO driver.core.passes: pass: all as it should be"]
        assert status(host)["repaired"] == []
        assert site.is_whole()
