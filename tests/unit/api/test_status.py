"""The status document."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from driver import __version__
from driver.api.status import document
from driver.errors import HostError
from driver.model.firewall import Ruleset, Uplink
from driver.model.interfaces import LeaseStatus
from driver.model.objects import Bridge, LoopbackGuard
from driver.model.records import replace
from tests.unit.bench import Bench, make_core
from tests.unit.docker import Docker, port
from tests.unit.fakes import FACTS


def busy() -> tuple[Bench, Docker]:
    bench = make_core()
    docker = Docker(bench)
    docker.start(docker.create_network(), port(80, 8080), port(53, 53, proto=17, host="10.0.0.1"))
    docker.start(docker.create_network(internal=True))
    bench.core.converge()
    return bench, docker


def test_an_empty_host() -> None:
    bench = make_core()
    assert document(bench.core) == {
        "version": __version__,
        "lease": {
            "subnet": "10.2.0.0/24",
            "network": "10.2.0.0/16",
            "mtu": 1450,
            "source": "standalone",
            "free_addresses": 256,
        },
        "phase": "held",
        "note": "",
        "firewall": "nft",
        "overlay": None,
        "peers": [],
        "networks": [],
        "endpoints": [],
        "blocks_of_others": [],
        "repaired": [],
        "warnings": [],
        "problems": [],
    }


def test_networks_and_endpoints_are_listed() -> None:
    bench, docker = busy()
    docker.quietly("IpamDriver.RequestPool", Pool="10.2.0.128/25")
    doc = document(bench.core)
    assert json.loads(json.dumps(doc)) == doc
    assert doc["lease"]["free_addresses"] == 256 - 32 - 32 - 128
    assert doc["blocks_of_others"] == ["10.2.0.128/25"]
    one, two = doc["networks"]
    assert one == {
        "id": one["id"],
        "block": "10.2.0.0/27",
        "gateway": "10.2.0.1",
        "docker_gateway": "10.2.0.1/27",
        "bridge": f"fl-{one['id'][:12]}",
        "mtu": 1450,
        "internal": False,
        "used": 2,
        "usable": 30,
    }
    assert (two["block"], two["internal"]) == ("10.2.0.32/27", True)
    first = doc["endpoints"][0]
    assert first["network"] == one["id"]
    assert (first["address"], first["mac"]) == ("10.2.0.2/27", "02:42:0a:02:00:02")
    assert first["ports"] == ["10.0.0.1:53->53/udp", "0.0.0.0:8080->80/tcp"]
    assert first["sandbox"].startswith("/var/run/docker/netns/")


def test_what_was_repaired_is_told() -> None:
    bench, _ = busy()
    bench.nft.lose(Ruleset)
    bench.passes(1)
    (repair,) = document(bench.core)["repaired"][-1:]
    assert repair["at"] == bench.clock()
    assert "1 ruleset" in repair["what"]


def test_what_may_go_wrong_is_told_apart_from_what_is_wrong() -> None:
    bench, _ = busy()
    doc = document(bench.core, ["a file holds a secret"], ["nft is old"])
    assert (doc["warnings"], doc["problems"]) == (["nft is old"], ["a file holds a secret"])


def test_problems_are_told() -> None:
    bench, _ = busy()
    bench.survey.now = replace(FACTS, forwarding=False, forwards=False)
    bench.kernel.lose(Bridge)
    bench.kernel.refuse = lambda item: (
        HostError("no bridges today") if isinstance(item, Bridge) else None
    )
    bench.passes(1)
    problems = document(bench.core)["problems"]
    assert any(p.startswith("net.ipv4.ip_forward is 0: containers reach") for p in problems)
    assert "no bridges today" in problems


def test_a_kernel_without_a_guard_is_named_where_a_port_needs_it() -> None:
    bench, _ = busy()
    bench.survey.now = replace(FACTS, guards=False)
    bench.passes(1)
    (problem,) = document(bench.core)["problems"]
    assert problem.startswith("127.0.0.1 leads to no container")
    assert not any(item.routed for item in bench.observed() if isinstance(item, LoopbackGuard))


def test_forwarding_that_we_switch_on_is_no_problem() -> None:
    bench, _ = busy()
    bench.survey.now = replace(FACTS, forwarding=False)
    bench.passes(1)
    assert document(bench.core)["problems"] == []


def test_forwarding_is_no_problem_without_networks() -> None:
    bench = make_core()
    bench.survey.now = replace(FACTS, forwarding=False)
    bench.passes(1)
    assert document(bench.core)["problems"] == []


def test_a_network_outside_the_lease_is_a_problem() -> None:
    bench, _ = busy()
    lease = bench.state.lease
    assert lease is not None
    moved = replace(lease, subnet=IPv4Network("10.2.9.0/24"))
    bench.core.state = replace(bench.state, lease=moved)
    doc = document(bench.core)
    assert doc["problems"] == [
        f"network {n['id'][:12]} has {n['block']}, outside the lease 10.2.9.0/24: remove it "
        f"(`docker network rm {n['id'][:12]}`) and make it anew"
        for n in doc["networks"]
    ]
    assert doc["lease"]["free_addresses"] == 256


def test_a_network_with_a_larger_mtu_than_the_lease_is_a_warning() -> None:
    bench, _ = busy()
    lease = bench.state.lease
    assert lease is not None
    bench.core.state = replace(bench.state, lease=replace(lease, mtu=1400))
    doc = document(bench.core)
    assert doc["warnings"] == [
        f"network {n['id'][:12]} has the MTU {n['mtu']}, the way to other hosts only 1400: larger "
        f"packets may be lost; remove it (`docker network rm {n['id'][:12]}`) and make it anew"
        for n in doc["networks"]
    ]
    bench.core.state = replace(bench.state, lease=replace(lease, mtu=9000))
    assert document(bench.core)["warnings"] == []


def test_no_lease_is_told_with_the_reason() -> None:
    bench = make_core(subnet_len=24)
    bench.core.state = replace(bench.state, lease=None)
    bench.core.lease_status = LeaseStatus(
        None, "waiting", ("lease file /x is not there; start flanneld",)
    )
    doc = document(bench.core)
    assert (doc["lease"], doc["problems"]) == (None, [*bench.core.lease_status.problems])


def test_a_bridge_whose_name_the_firewall_cannot_take_stops_nothing_else() -> None:
    bench, _ = busy()
    bench.survey.now = replace(FACTS, uplinks=frozenset({"br0", 'br"0'}))
    bench.passes(1)
    (problem,) = document(bench.core)["problems"]
    assert problem.startswith("the firewall cannot take the name of bridge 'br\"0'")
    assert {t.bridge for t in bench.observed() if isinstance(t, Uplink)} == {"br0"}
