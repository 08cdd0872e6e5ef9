"""Which tracked flows a change of published ports makes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest

from driver.core.firewall import plan_ports
from driver.core.flows import DST_NAT, SEEN_REPLY, SRC_NAT, Forgetful, wrong_flows
from driver.errors import HostError
from driver.model.firewall import BridgePair, FirewallEntry, Flows, PortMap, Ruleset
from driver.model.objects import Plan, PortSocket
from driver.model.records import PortMapping
from tests.unit.fake_adapters import FakeNft
from tests.unit.sample import DNS, END, WEB, endpoint

IP = IPv4Address("10.2.3.2")
TABLE = Ruleset()
SCTP = PortMapping("sctp", IPv4Address("192.168.1.5"), 9999, 99)


def led(mapping: PortMapping, ip: str = "10.2.3.2/27") -> PortMap:
    (made,) = (t for t in plan_ports(endpoint(ip=ip, ports=(mapping,))) if isinstance(t, PortMap))
    return made


class Tracker:
    """Remembers what it was told to forget."""

    def __init__(self) -> None:
        self.told: list[Flows] = []

    def forget(self, wrong: Sequence[Flows]) -> None:
        self.told += wrong


@pytest.mark.parametrize(
    "item", [TABLE, BridgePair("fl-1", "fl-1"), PortSocket("tcp", IP, 80, END)]
)
def test_no_other_thing_is_a_port(item: Ruleset | FirewallEntry | PortSocket) -> None:
    assert list(wrong_flows(Plan(add=(item,), remove=(item,)))) == []


def test_what_asked_before_a_port_was_published() -> None:
    assert list(wrong_flows(Plan(add=(led(WEB), led(DNS), led(SCTP))))) == [
        Flows("tcp", 8080, None, without=SEEN_REPLY | SRC_NAT | DST_NAT),
        Flows("udp", 53, DNS.host_ip, without=SRC_NAT),
        Flows("sctp", 9999, SCTP.host_ip, without=SEEN_REPLY | SRC_NAT | DST_NAT),
    ]


def test_what_still_goes_to_a_container_that_gave_its_port_up() -> None:
    assert list(wrong_flows(Plan(remove=(led(WEB), led(DNS))))) == [
        Flows("tcp", 8080, None, IP),
        Flows("udp", 53, DNS.host_ip, IP),
    ]


def test_a_port_that_moves_is_both() -> None:
    old, new = led(WEB), led(WEB, "10.2.3.9/27")
    wrong = list(wrong_flows(Plan(change=((old, new),))))
    assert wrong == [
        Flows("tcp", 8080, None, IP),
        Flows("tcp", 8080, None, without=SEEN_REPLY | SRC_NAT | DST_NAT),
    ]


def test_flows_are_forgotten_when_the_firewall_has_changed() -> None:
    nft, tracker = FakeNft(), Tracker()
    adapter = Forgetful(nft, tracker)
    assert adapter.kinds == nft.kinds
    adapter.apply(Plan(add=(TABLE,)))
    assert tracker.told == []
    adapter.apply(Plan(add=(led(WEB),)))
    assert [flows.port for flows in tracker.told] == [8080]
    assert adapter.observe() == nft.observe() == {TABLE, led(WEB)}
    nft.refuse = lambda _: HostError("no")
    with pytest.raises(ExceptionGroup):
        adapter.apply(Plan(change=((led(WEB), led(WEB, "10.2.3.9/27")),)))
    assert len(tracker.told) == 1
    adapter.close()
