"""A liar writes leases in etcd: nothing is cut off, nothing leaves in clear, each is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Process, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import address, pings
from tests.e2e.outage import (
    Traffic,
    World,
    has_peers,
    key,
    lease,
    peers,
    problems,
    status,
    subnet,
    told,
)
from tests.unit.etcd_member import CONFIG_KEY, FOLDER

# with the LAN, etcd and the default gateway in it
WIDE = (
    '{"Network": "192.0.0.0/8", "SubnetMin": "192.168.0.0", "SubnetMax": "192.168.99.0", '
    '"Backend": {"Type": "vxlan"}}'
)


@pytest.fixture(scope="module")
def world(bed: Bed) -> World:
    return World.build(bed, 1)


@pytest.fixture
def wire(two: World) -> Iterator[Process]:
    """Record what leaves and enters the first host by its cable."""
    tool = (sys.executable, "-m", "tests.e2e.overlay_tools", "capture", "to-h1")
    process = two.bed.outside.popen(*tool, cwd=PROJECT, log_name="wire")
    wait_for(lambda: "ready" in process.log(), "the recording")
    yield process
    process.kill()


def in_clear(wire: Process, *ips: str) -> list[str]:
    """List the recorded packets that name one of these addresses without encapsulation."""
    lines = set(wire.log().splitlines())
    assert any(line.startswith("plain 192.0.2.11 192.0.2.") for line in lines), "it records"
    return [line for line in lines if line.startswith("plain") and set(ips) & set(line.split())]


def test_no_lease_takes_anything_from_peers_or_from_the_host(two: World, wire: Process) -> None:
    h1, h2 = two.hosts
    two.store.put(CONFIG_KEY, WIDE)
    wait_for(lambda: all(subnet(h).startswith("192.168.") for h in two.hosts), "new leases", 30)
    others = {subnet(h2): h2.address}
    has_peers(h1, others)
    has_peers(h2, {subnet(h1): h1.address})
    inner = two.talk()
    ips = [address(h, f"web{n}", "app") for n, h in enumerate(two.hosts, 1)]
    outer = [Traffic(h1, "", ip) for ip in (two.store.node.address, two.visitor.address)]
    mac = status(h2)["overlay"]["mac"]
    start = subnet(h2).partition("/")[0]
    lies = {
        "192.0.2.0-24": lease(99),  # the LAN
        "192.0.2.192-27": lease(98),  # etcd, and a visitor
        "192.0.2.200-31": lease(97),  # etcd
        "192.0.2.0-31": lease(96),  # the gateway
        "192.0.0.0-16": lease(95),  # all of it
        f"{start}-25": lease(94),  # half of a peer's
        f"{start.removesuffix('.0')}.128-25": lease(93),  # the other half
        "192.168.200.0-24": lease(92, BackendData={"VNI": 1, "VtepMAC": mac}),
        "192.168.201.0-24": lease(91, PublicIP=ips[1]),
    }
    for name, text in lies.items():
        two.store.put(FOLDER + name, text)
    for host in two.hosts:
        told(host, *(f'"{FOLDER}{name}"' for name in lies if host is h1 or start not in name))
    assert any(
        "the Network 192.0.0.0/8 contains 192.0.2.1, this host's gateway" in warning
        for warning in status(h1)["warnings"]
    )
    two.start_plugin(h1)
    told(h1, *(f'"{FOLDER}{name}"' for name in lies))
    assert len(problems(h1).splitlines()) == len(lies)
    assert peers(h1) == others
    two.store.put(CONFIG_KEY, '{"Network": "0.0.0.0/1", "Backend": {"Type": "vxlan"}}')
    told(h1, "Network 0.0.0.0/1 cannot be an overlay's network", "the config stays as it was")
    assert peers(h1) == others
    two.store.put(CONFIG_KEY, WIDE)
    for traffic in (inner, *outer):
        traffic.end()
    assert not in_clear(wire, *ips)


def test_what_a_peer_had_stays_inside_when_its_lease_is_gone(two: World, wire: Process) -> None:
    h1, h2 = two.hosts
    traffic = two.talk()
    ip = address(h2, "web2", "app")
    assert h1.run("ping", "-c", "1", "-w", "5", ip).ok
    lie = f"{FOLDER}10.2.250.0-24"
    two.store.put(lie, lease(90, PublicIP="10.2.251.1"))
    told(h1, f'"{lie}" of 10.2.251.1 has the PublicIP 10.2.251.1, which is inside the Network')
    two.store.ctl("del", lie)
    gone = key(h2)
    h2.kill_plugin()
    two.store.ctl("del", gone)
    has_peers(h1, {})
    assert not h1.run("ping", "-c", "3", "-i", "0.2", "-w", "2", ip, check=False).ok
    assert not pings(h1, "web1", ip), "nor what goes on since before"
    assert not in_clear(wire, ip)
    two.start_plugin(h2)
    two.meet(h1, h2)
    wait_for(lambda: pings(h1, "web1", ip), "the way back")
    traffic.end(may_lose=1000)
