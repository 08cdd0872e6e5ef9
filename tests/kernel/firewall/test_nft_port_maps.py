"""Ports written by the kernel's own messages, read back by libnftables."""

from contextlib import closing
from ipaddress import IPv4Address

import pytest

from driver.core.firewall import plan_ports
from driver.host.firewall.nft_port_maps import NftPortMaps
from driver.model.firewall import PortMap
from driver.model.objects import Plan
from driver.model.records import ANY, PortMapping, replace
from tests.kernel.sample import ONE, WANTED, WEB

pytestmark = pytest.mark.kernel

SOME = IPv4Address("192.0.2.7")


@pytest.fixture
def maps(host):  # noqa: ARG001  it works inside
    with closing(NftPortMaps()) as made:
        yield made


def elements(*ports):
    objects = plan_ports(replace(WEB, ports=ports))
    return {item for item in objects if isinstance(item, PortMap)}


MANY = elements(
    *(PortMapping("udp", ANY, port, port + 1) for port in range(20000, 20450)),
    *(PortMapping(proto, ANY, 9000, 90) for proto in ("tcp", "udp", "sctp")),
    *(PortMapping(proto, SOME, 9000, 91) for proto in ("tcp", "udp", "sctp")),
    PortMapping("tcp", IPv4Address("127.0.0.1"), 1, 65535),
)


def test_ports_come_and_go(full, maps):
    maps.change([], [*MANY])
    assert full.observe() == WANTED | MANY
    maps.change([*MANY], [])
    assert full.observe() == WANTED


def test_a_port_leads_elsewhere_in_one_transaction(full, maps):
    moved = replace(ONE, target=IPv4Address("10.2.0.3"), target_port=81, owner="c" * 64)
    maps.change([ONE], [moved])
    assert full.observe() == WANTED - {ONE} | {moved}


def test_all_or_nothing(full, maps):
    with pytest.raises(FileExistsError):
        maps.change([], [*MANY, ONE])
    assert full.observe() == WANTED
    with pytest.raises(FileNotFoundError):
        maps.change([ONE, *MANY], [])
    assert full.observe() == WANTED
    with pytest.raises(FileExistsError):
        maps.change([ONE], [*MANY, *MANY])
    assert full.observe() == WANTED


def test_without_a_table(maps):
    with pytest.raises(FileNotFoundError):
        maps.change([], [ONE])


def test_libnftables_is_not_needed_for_a_containers_ports(full, monkeypatch):
    def refuse(_):
        raise AssertionError

    monkeypatch.setattr(full, "_run", refuse)
    full.apply(Plan(add=tuple(MANY)))
    full.apply(Plan(remove=(ONE, *MANY)))
    assert full.observe() == WANTED - {ONE}
    assert not full.disturbed()
