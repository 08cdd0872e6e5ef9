"""Which tracked flows a change of published ports makes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest

from driver.core.firewall import TABLE_TEXT, Published, plan_ports, read_port
from driver.core.flows import DST_NAT, SEEN_REPLY, SRC_NAT, Flows, Forgetful, wrong_flows
from driver.errors import HostError
from driver.model.objects import Element, Plan, PortSocket, Table
from driver.model.records import PortMapping, replace
from tests.unit.fake_adapters import FakeNft
from tests.unit.sample import DNS, END, WEB, endpoint

IP = IPv4Address("10.2.3.2")
TABLE = Table(TABLE_TEXT)
SCTP = PortMapping("sctp", IPv4Address("192.168.1.5"), 9999, 99)


def element(mapping: PortMapping, ip: str = "10.2.3.2/27") -> Element:
    (made,) = (t for t in plan_ports(endpoint(ip=ip, ports=(mapping,))) if isinstance(t, Element))
    return made


class Tracker:
    """Remembers what it was told to forget."""

    def __init__(self) -> None:
        self.told: list[Flows] = []

    def forget(self, wrong: Sequence[Flows]) -> None:
        self.told += wrong


@pytest.mark.parametrize("mapping", [WEB, DNS, SCTP])
def test_a_port_is_read_back_from_its_element(mapping: PortMapping) -> None:
    assert read_port(element(mapping)) == Published(mapping, IP, END)


@pytest.mark.parametrize(
    "item", [TABLE, Element("pair", '"fl-1" . "fl-1"'), PortSocket("tcp", IP, 80, END)]
)
def test_no_other_thing_is_a_port(item: Table | Element | PortSocket) -> None:
    assert read_port(item) is None
    assert list(wrong_flows(Plan(add=(item,), remove=(item,)))) == []


def test_what_asked_before_a_port_was_published() -> None:
    assert list(wrong_flows(Plan(add=(element(WEB), element(DNS), element(SCTP))))) == [
        Flows("tcp", 8080, None, without=SEEN_REPLY | SRC_NAT | DST_NAT),
        Flows("udp", 53, DNS.host_ip, without=SRC_NAT),
        Flows("sctp", 9999, SCTP.host_ip, without=SEEN_REPLY | SRC_NAT | DST_NAT),
    ]


def test_what_still_goes_to_a_container_that_gave_its_port_up() -> None:
    assert list(wrong_flows(Plan(remove=(element(WEB), element(DNS))))) == [
        Flows("tcp", 8080, None, IP),
        Flows("udp", 53, DNS.host_ip, IP),
    ]


def test_a_port_that_moves_is_both() -> None:
    old, new = element(WEB), element(WEB, "10.2.3.9/27")
    wrong = list(wrong_flows(Plan(change=((old, new),))))
    assert wrong == [
        Flows("tcp", 8080, None, IP),
        Flows("tcp", 8080, None, without=SEEN_REPLY | SRC_NAT | DST_NAT),
    ]


def test_flows_are_forgotten_when_the_firewall_has_changed() -> None:
    nft, tracker = FakeNft(), Tracker()
    host = Forgetful(nft, tracker)
    assert host.kinds == nft.kinds
    host.apply(Plan(add=(TABLE,)))
    assert tracker.told == []
    host.apply(Plan(add=(element(WEB),)))
    assert [flows.port for flows in tracker.told] == [8080]
    assert host.observe() == nft.observe() == {TABLE, element(WEB)}
    nft.refuse = lambda _: HostError("no")
    with pytest.raises(ExceptionGroup):
        host.apply(Plan(change=((element(WEB), replace(element(WEB), data="10.2.3.9 . 80")),)))
    assert len(tracker.told) == 1
    host.close()
