"""The fakes of adapters keep the contract of the real ones."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from driver.errors import HostError
from driver.model.objects import (
    Bridge,
    Element,
    ForwardGate,
    HostObject,
    LinkAddress,
    PortSocket,
    Sysctl,
    Table,
    UnreachableRoute,
    Veth,
    diff,
)
from driver.model.records import replace
from tests.unit.contract import check_adapter, check_failure
from tests.unit.fake_adapters import FakeAdapter, FakeGate, FakeKernel, FakeNft, FakePorts
from tests.unit.fakes import World

BRIDGE = Bridge("fl-1", "02:66:00:00:00:01", 1450, "1")
VETH = Veth("flh1", "fl-1", 1450, False, "e1", "flc1", "02:42:00:00:00:01")
ADDRESS = LinkAddress("fl-1", IPv4Interface("10.2.0.1/26"))
SYSCTL = Sysctl("fl-1", "ipv4", "route_localnet", "1")
ROUTE = UnreachableRoute(IPv4Network("10.2.0.0/24"))
HOLD = PortSocket("tcp", IPv4Address(0), 8080, "e1")
TABLE = Table("chain a {}")
ELEMENT = Element("pub4_any", "tcp . 8080", "10.2.0.2 . 80", "e1")

CASES: list[tuple[type[FakeAdapter], list[HostObject], tuple[HostObject, HostObject] | None]] = [
    (FakeKernel, [BRIDGE, VETH, ADDRESS, SYSCTL, ROUTE], (VETH, replace(VETH, hairpin=True))),
    (FakePorts, [HOLD], (HOLD, replace(HOLD, owner="e2"))),
    (FakeNft, [TABLE, ELEMENT], (ELEMENT, replace(ELEMENT, data="10.2.0.3 . 80"))),
    (FakeGate, [ForwardGate("nft"), ForwardGate("legacy")], None),
]


@pytest.mark.parametrize(("kind", "objects", "change"), CASES)
def test_fake_adapter_meets_the_contract(
    kind: type[FakeAdapter], objects: list[HostObject], change: tuple[HostObject, HostObject] | None
) -> None:
    check_adapter(kind(World()), objects, change)


def test_fake_adapter_does_the_rest_when_one_thing_fails() -> None:
    adapter = FakeNft(World())
    bad = replace(ELEMENT, at="tcp . 1")
    adapter.refuse = lambda item: HostError("no such element") if item == bad else None
    check_failure(adapter, [TABLE, ELEMENT], bad, "no such element")


def test_fake_kernel_needs_a_bridge_and_loses_what_hangs_on_it() -> None:
    adapter = FakeKernel(World())
    check_failure(adapter, [ROUTE], ADDRESS, "needs")
    adapter.plant(BRIDGE, VETH, ADDRESS, SYSCTL)
    adapter.lose(Bridge)
    assert adapter.observe() == {replace(VETH, bridge="")}
    assert diff(adapter.observe(), [VETH]).change == ((replace(VETH, bridge=""), VETH),)


def test_fake_kernel_lists_the_links_that_are_in_the_hosts_namespace() -> None:
    adapter = FakeKernel(World())
    adapter.plant(BRIDGE, VETH)
    assert adapter.links() == {"fl-1", "flh1", "flc1"}
    adapter.moved.add("flc1")
    assert adapter.links() == {"fl-1", "flh1"}
