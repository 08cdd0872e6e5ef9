"""The nft table in a real kernel: what is applied is observed, and drift is seen."""

import json
import subprocess
import sys
import threading
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from driver.host.firewall import nft_listing
from driver.host.firewall.nft import PATH, NftFirewall
from driver.host.firewall.nft_table import TABLE as TABLE_NAME
from driver.host.firewall.nft_table import TEXT
from driver.model.firewall import InternalBridge, PortMap, UnknownEntry, Uplink, nameable
from driver.model.objects import diff
from driver.model.records import ANY
from tests.kernel.sample import (
    ONE,
    TABLE,
    WANTED,
)

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    "command",
    [
        "insert rule inet docker_flannel forward accept",
        "add rule inet docker_flannel forward accept",
        "flush chain inet docker_flannel publish",
        "flush table inet docker_flannel",
        "add chain inet docker_flannel foreign",
        "add set inet docker_flannel foreign { type ipv4_addr; }",
        "add table inet docker_flannel { flags dormant; }",
        "add chain inet docker_flannel forward { policy drop; }",
        "delete table inet docker_flannel",
        "flush ruleset",
    ],
)
def test_a_changed_skeleton_is_replaced_with_everything(full, host, command):
    host.run("nft", command)
    assert TABLE not in full.observe()
    full.apply(diff(full.observe(), WANTED))
    assert full.observe() == WANTED


def test_changed_elements_are_seen_one_by_one(full, host):
    for command in (
        "delete element inet docker_flannel pub4_any { tcp . 8080 }",
        "add element inet docker_flannel internal { eth0 }",
        "add element inet docker_flannel over4 { 10.9.0.1-10.9.0.6 }",
        "add element inet docker_flannel pub4_any { udp . 1 : 10.9.0.1 . 2 }",
    ):
        host.run("nft", command)
    plan = diff(full.observe(), WANTED)
    assert plan.add == (ONE,)
    assert set(plan.remove) == {
        InternalBridge("eth0"),
        UnknownEntry("over4", "10.9.0.1-10.9.0.6"),
        PortMap("udp", ANY, 1, IPv4Address("10.9.0.1"), 2),
    }
    full.apply(plan)
    assert full.observe() == WANTED


@pytest.mark.usefixtures("full")
def test_a_table_of_an_earlier_process_is_replaced(host):
    host.run("nft", "add element inet docker_flannel internal { eth0 }")
    with closing(NftFirewall()) as later:
        assert TABLE not in later.observe()
        assert ONE in later.observe(), "what runs is seen before anything is changed"
        later.apply(diff(later.observe(), WANTED))
        assert later.observe() == WANTED


def test_observing_bears_others_at_work(full):
    stray = InternalBridge("eth9")
    replaced = f"add table {PATH}; delete table {PATH}; table {PATH} {{ {TEXT} }}"
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for text in (
                f"add element {PATH} internal {{ eth9 }}",
                "add table inet foreign; add chain inet foreign x",
                f"delete element {PATH} internal {{ eth9 }}",
                "delete table inet foreign",
            ):
                subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        for _ in range(10):
            subprocess.run(["nft", "-f", "-"], input=replaced, text=True, check=True)

    thread = threading.Thread(target=work)
    thread.start()
    seen = {full.observe() for _ in range(100)}
    stop.set()
    while thread.is_alive():
        assert TABLE in full.observe()
    thread.join()
    assert seen <= {frozenset(WANTED), frozenset(WANTED | {stray})}
    assert full.observe() == {TABLE}


@pytest.mark.parametrize("data", ["ipv4_addr . inet_service", ["ipv4_addr", "inet_service"]])
def test_a_map_is_read_as_old_and_new_libraries_list_it(data):
    key = {"elem": {"val": {"concat": [6, 8080]}, "comment": "1" * 64}}
    listed = {
        "name": "pub4_any",
        "type": ["inet_proto", "inet_service"],
        "map": data,
        "elem": [[key, {"concat": ["10.2.0.2", 80]}]],
    }
    assert nft_listing.entries([listed]) == [ONE]


def test_names_of_protocols_need_no_file():
    """In a mount namespace whose /etc/protocols is empty, as in small container images."""
    script = (
        "import subprocess, sys; sys.path[:0] = sys.argv[1:]\n"
        "subprocess.run(['mount', '--bind', '/dev/null', '/etc/protocols'], check=True)\n"
        "import test_nft as t\n"
        "nft = t.NftFirewall(); nft.apply(t.diff((), t.WANTED)); assert nft.observe() == t.WANTED"
    )
    here = Path(__file__).parent
    paths = [str(here.parents[2]), str(here)]
    subprocess.run(["unshare", "-m", sys.executable, "-c", script, *paths], check=True)


def test_a_table_is_cleared_by_a_process_with_thousands_of_sockets(full):
    """libnftables ends a process whose netlink socket has a number above 1023."""
    assert full.observe() == WANTED
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from driver.host.port_sockets import PortSockets; sockets = PortSockets()\n"
        "taken = [os.dup(0) for _ in range(1024)]\n"
        "from driver.host.firewall.nft import NftFirewall; nft = NftFirewall()\n"
        "nft.clear(); nft.clear()"
    )
    subprocess.run([sys.executable, "-c", script, Path(__file__).parents[3]], check=True)
    assert full.observe() == frozenset()


def test_an_element_that_nft_cannot_write_is_removed_with_the_table(full, host):
    for name, element in (
        ("internal", 'eth"0'),
        ("internal", "eth\\*"),
        ("own4", {"concat": ["10.9.0.1", '"']}),
    ):
        at = {"family": "inet", "table": TABLE_NAME, "name": name, "elem": [element]}
        host.run("nft", "-j", "-f", "-", text=json.dumps({"nftables": [{"add": {"element": at}}]}))
    plan = diff(full.observe(), WANTED - {ONE})
    assert len(plan.remove) == 4
    full.apply(plan)
    assert full.observe() == WANTED - {ONE}


GOOD_NAMES = (
    *("br0", "br.1@x", "br+", "b*r", "-b", "b\\", "b'", "b;", "b{}", "$b", "#b", "@b"),
    *("br\u00fc", "b" * 15),
)


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_link_that_is_nameable_can_be_in_the_table(nft, name):
    assert nameable(name)
    wanted = {*WANTED, Uplink(name)}
    nft.apply(diff(nft.observe(), wanted))
    assert nft.observe() == wanted


@pytest.mark.parametrize("name", ['b"r', "br*", "br" + 5 * "\ufffd"])
def test_a_link_that_is_not_nameable_cannot(nft, name):
    assert not nameable(name)
    with pytest.raises(ExceptionGroup):
        nft.apply(diff(nft.observe(), {*WANTED, Uplink(name)}))
