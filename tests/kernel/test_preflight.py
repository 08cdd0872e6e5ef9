"""What the preflight finds on a real kernel."""

import sys
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.config import Config
from driver.errors import HostError
from driver.host import preflight
from driver.host.firewall import nft
from driver.host.loopback import LoopbackGuards
from driver.model.preflight import BRIDGE, GUARDS, LIBNFTABLES, NF_TABLES, VETH, VXLAN, VXLAN_PORT
from driver.setup.check import FAILED, Look, findings

pytestmark = pytest.mark.kernel
PORT = VXLAN_PORT
ETCD = {"FLANNELD_ETCD_ENDPOINTS": "http://192.0.2.1:2379"}


def look(iface=None, public_ip=None, port=PORT):
    return preflight.look(iface, public_ip, port)


def failed(found):
    """What the checks say of it, by name, on a host with etcd."""
    said = findings(Look(Config.read({}, ETCD), found))
    return {name: f.text for name, f in said if f.result == FAILED}


def test_this_kernel_has_what_the_other_tests_here_use(host):
    before = host.run("ip", "-o", "link"), host.run("nft", "list", "ruleset")
    found = look()
    assert found.lacking == frozenset()
    assert (host.run("ip", "-o", "link"), host.run("nft", "list", "ruleset")) == before
    assert not found.port_taken


@pytest.mark.parametrize("kind", ["BRIDGE", "VETH", "VXLAN"])
def test_a_kind_of_link_that_the_kernel_has_not(host, kind, monkeypatch):
    monkeypatch.setattr(preflight, kind, "nosuch")
    with host:
        assert look().lacking >= {"nosuch"}
        assert not look().lacking & {BRIDGE, VETH, VXLAN} - {kind.lower()} - {GUARDS}


def test_a_filter_that_the_kernel_has_not(host, monkeypatch):
    monkeypatch.setattr(preflight, "LoopbackGuards", lambda: LoopbackGuards("nosuch"))
    with host:
        assert look().lacking == {GUARDS}


def test_a_kernel_without_nf_tables(host, monkeypatch):
    monkeypatch.setattr(preflight, "has_nf_tables", lambda: False)
    with host:
        assert look().lacking == {NF_TABLES}


def test_a_host_without_libnftables(host, monkeypatch):
    monkeypatch.setattr(nft, "LIBRARY", "libnosuch.so.1")
    unraised = list[object]()
    monkeypatch.setattr(sys, "unraisablehook", unraised.append)
    with host:
        assert look().lacking == {LIBNFTABLES}
    assert unraised == [], "that would be a traceback on stderr"


def test_a_foreign_vxlan_device(host):
    host.ip(f"link add vx0 type vxlan id 1 dstport {PORT}", "link set vx0 up")
    with host:
        found = look()
    assert found.facts.flanneld.devices == {("vx0", 1, PORT)}
    assert not found.port_taken, "a device has it, which is told by its own check"
    assert "the vxlan device vx0 has VNI 1" in failed(found)["UDP port"]


def test_a_program_with_the_port(host):
    with closing(host.listen(PORT, udp=True)), host:
        assert look().port_taken
        assert "a program has UDP port" in failed(look())["UDP port"]
        assert not look(port=PORT + 1).port_taken
    with host:
        assert not look().port_taken


def test_a_lan_that_overlaps(host):
    host.ip("link add eth0 type bridge", "addr add 10.2.7.9/24 dev eth0", "link set eth0 up",
            "route add default via 10.2.7.1 dev eth0")  # fmt: skip
    with host:
        found = look()
    assert (found.external.name, found.external.ip) == ("eth0", IPv4Address("10.2.7.9"))
    assert IPv4Network("10.2.7.0/24") in found.facts.onlink
    assert "this host reaches 10.2.7.0/24, which overlaps 10.2.0.0/16" in failed(found)["subnets"]


def test_no_way_to_other_hosts(host):
    with host:
        assert "default route" in failed(look())["interface"]
        assert "FLANNELD_IFACE eth7 is no interface" in look("eth7").no_external


def test_who_is_not_root_is_told_of_sudo(monkeypatch):
    def refused(_act):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(preflight, "in_scratch", refused)
    with pytest.raises(HostError, match="use sudo"):
        look()
