"""Who is at the other ends of our veths, with real namespaces."""

from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface

import pytest

from driver.host.netlink.constants import GROUP
from driver.host.residents import Residents

pytestmark = pytest.mark.kernel

HERE, THERE = "flhaaaaaaaaaaaa", "flhbbbbbbbbbbbb"


@pytest.fixture
def sandbox(host, namespace, tmp_path):
    """A container of ours, and a veth of ours that has both ends on the host."""
    inside = namespace()
    host.ip(
        f"link add {HERE} group {GROUP} type veth peer name flcaaaaaaaaaaaa",
        f"link add {THERE} group {GROUP} up type veth peer name eth3 netns {inside.path}",
        f"link add foreign up type veth peer name eth9 netns {inside.path}",
    )
    inside.ip(
        "link set eth3 address 02:42:0a:02:00:05 up",
        "addr add 172.18.0.2/16 dev eth3",
        "addr add 10.2.0.5/26 dev eth3",
        "route add default via 172.18.0.1",
    )
    folder = tmp_path / "docker/netns"
    folder.mkdir(parents=True)
    (folder / "gone").touch()  # as Docker leaves what it is about to make or has removed
    (folder / "0123456789ab").symlink_to(inside.path)
    return folder


def test_a_veth_with_its_other_end_in_a_sandbox_is_occupied(sandbox, tmp_path):
    with closing(Residents(tmp_path)) as residents:
        assert residents.occupied() == {THERE}
        [found] = residents.look(residents.occupied())
        assert found.host_end == THERE
        assert found.sandbox == str(sandbox / "0123456789ab")
        assert (found.interface, found.mac) == ("eth3", "02:42:0a:02:00:05")
        wanted = {IPv4Interface("172.18.0.2/16"), IPv4Interface("10.2.0.5/26")}
        assert set(found.addresses) == wanted
        assert found.gateways == {IPv4Address("172.18.0.1")}


def test_a_sandbox_that_is_nowhere_is_occupied_all_the_same(sandbox, tmp_path):
    (sandbox / "0123456789ab").unlink()
    with closing(Residents(tmp_path)) as residents:
        assert residents.occupied() == {THERE}
        assert residents.look(residents.occupied()) == ()
        assert residents.look(frozenset()) == ()
