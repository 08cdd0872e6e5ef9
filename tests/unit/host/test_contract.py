"""The fakes keep the contracts of what they stand for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from driver.errors import HostError
from driver.model.firewall import ForwardGate, PortMap, Ruleset
from driver.model.objects import (
    Bridge,
    Fdb,
    HostObject,
    LinkAddress,
    Neighbour,
    PeerRoute,
    PortSocket,
    SandboxAddress,
    Sysctl,
    UnreachableRoute,
    Veth,
    Vxlan,
    diff,
)
from driver.model.records import State, replace
from tests.unit.contract import (
    check_adapter,
    check_failure,
    check_source,
    check_survey,
    check_waiting,
)
from tests.unit.fake_adapters import (
    FakeAdapter,
    FakeGate,
    FakeKernel,
    FakeNft,
    FakeOverlay,
    FakePorts,
    FakeSandboxes,
    FakeSurvey,
)
from tests.unit.fakes import FACTS, FakeSource, World

BRIDGE = Bridge("fl-1", "02:66:00:00:00:01", 1450, "1")
VETH = Veth("flh1", "fl-1", 1450, False, "e1", "flc1", "02:42:00:00:00:01")
ADDRESS = LinkAddress("fl-1", IPv4Interface("10.2.0.1/26"))
SYSCTL = Sysctl("fl-1", "ipv4", "route_localnet", "1")
ROUTE = UnreachableRoute(IPv4Network("10.2.0.0/24"))
HOLD = PortSocket("tcp", IPv4Address(0), 8080, "e1")
TABLE = Ruleset()
ELEMENT = PortMap("tcp", IPv4Address(0), 8080, IPv4Address("10.2.0.2"), 80, "e1")
SECOND = SandboxAddress("flh1", "/sandbox", IPv4Interface("10.2.0.2/26"), None, None)
NFT = ForwardGate("nft")
PEER, MAC = IPv4Network("10.2.9.0/24"), "02:00:00:00:00:09"
NEIGHBOUR = Neighbour("flannel.1", PEER[0], MAC)
OVERLAY: list[HostObject] = [
    Vxlan("flannel.1", 1, 8472, PEER[1], "eth0", MAC, 1450, gbp=False, learning=False),
    NEIGHBOUR,
    Fdb("flannel.1", MAC, PEER[1]),
    PeerRoute(PEER, PEER[0], "flannel.1", onlink=True),
]


def in_sandbox() -> FakeSandboxes:
    """Return the adapter of a host with a veth whose container end is in a sandbox."""
    kernel = FakeKernel(World())
    kernel.plant(BRIDGE, VETH)
    kernel.moved.add(VETH.container_end)
    return FakeSandboxes(kernel)


CASES: list[tuple[FakeAdapter, list[HostObject], HostObject, HostObject]] = [
    (
        FakeKernel(World()),
        [BRIDGE, VETH, ADDRESS, SYSCTL, ROUTE],
        VETH,
        replace(VETH, hairpin=True),
    ),
    (FakePorts(World()), [HOLD], HOLD, replace(HOLD, owner="e2")),
    (FakeNft(World()), [TABLE, ELEMENT], ELEMENT, replace(ELEMENT, target_port=81)),
    (FakeGate(World()), [NFT, ForwardGate("legacy")], NFT, replace(NFT, bridged=True)),
    (FakeOverlay(World()), OVERLAY, NEIGHBOUR, replace(NEIGHBOUR, mac=VETH.mac)),
    (in_sandbox(), [SECOND], SECOND, replace(SECOND, via=ADDRESS.ip.ip)),
]


@pytest.mark.parametrize(("adapter", "objects", "old", "new"), CASES)
def test_fake_adapter_meets_the_contract(
    adapter: FakeAdapter, objects: list[HostObject], old: HostObject, new: HostObject
) -> None:
    check_adapter(adapter, objects, (old, new))


def test_fake_ports_refuse_what_another_program_has() -> None:
    adapter = FakePorts(World())
    adapter.taken = {HOLD.port}
    words = "Bind for 0.0.0.0:8080 failed: port is already allocated"
    check_failure(adapter, [replace(HOLD, port=81)], HOLD, words)


def test_fake_sandboxes_wait_for_docker_to_move_the_interface() -> None:
    kernel = FakeKernel(World())
    kernel.plant(BRIDGE, VETH)
    check_waiting(FakeSandboxes(kernel), SECOND, lambda: kernel.moved.add(VETH.container_end))


def test_fake_survey_meets_the_contract() -> None:
    kernel = FakeKernel(World())
    survey = FakeSurvey(kernel)
    check_survey(survey, kernel, BRIDGE, VETH, [ADDRESS, SYSCTL], lambda: kernel.moved.add("flc1"))


def test_fake_source_meets_the_contract() -> None:
    check_source(FakeSource(), State(), FACTS)


def test_fake_adapter_does_the_rest_when_one_thing_fails() -> None:
    adapter = FakeNft(World())
    bad = replace(ELEMENT, host_port=1)
    adapter.refuse = lambda item: HostError("no such element") if item == bad else None
    check_failure(adapter, [TABLE, ELEMENT], bad, "no such element")


def test_fake_kernel_needs_a_bridge_and_loses_what_hangs_on_it() -> None:
    adapter = FakeKernel(World())
    check_failure(adapter, [ROUTE], ADDRESS, "needs")
    adapter.plant(BRIDGE, VETH, ADDRESS, SYSCTL)
    adapter.lose(Bridge)
    assert adapter.observe() == {replace(VETH, bridge="")}
    assert diff(adapter.observe(), [VETH]).change == ((replace(VETH, bridge=""), VETH),)
