"""The lease address beside Docker's: the adapter in real sandboxes, as Docker leaves them."""

import os
import threading
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from driver.host.links import Links
from driver.host.sandbox import Sandboxes
from driver.model.objects import Plan, SandboxAddress
from driver.model.records import replace
from tests.unit.contract import check_adapter, check_failure, check_waiting

pytestmark = pytest.mark.kernel

OVERLAY = IPv4Network("10.2.0.0/16")
LIMIT_S = 10.0


@pytest.fixture
def sandboxes(host):  # noqa: ARG001  it works inside
    with closing(Sandboxes()) as made:
        yield made


class Site:
    """Bridges on the host with both gateways each, and containers' interfaces made in steps."""

    def __init__(self, host, namespace):
        self.host, self._namespace = host, namespace
        host.ip("link add over type bridge", "addr add 10.2.9.9/32 dev over", "link set over up")

    def bridge(self, number):
        self.host.ip(
            f"link add fl-{number} type bridge",
            f"addr add 10.2.{number}.1/26 dev fl-{number}",
            f"addr add 172.{17 + number}.0.1/16 dev fl-{number}",
            f"link set fl-{number} up",
        )

    def veth(self, number, host=2):
        name = f"{number}{host}".rjust(12, "0")
        self.host.ip(f"link add flh{name} up master fl-{number} type veth peer name flc{name}")
        return name

    def sandbox(self):
        return self._namespace()

    def move(self, name, box, number, host=2, as_="eth0"):
        """What Docker does: move, rename, address, up."""
        self.host.ip(f"link set flc{name} netns {box.path}")
        docker = f"172.{17 + number}.0.{host}/16"
        box.ip(f"link set flc{name} name {as_}", f"addr add {docker} dev {as_}")
        box.ip(f"link set {as_} up")

    def wanted(self, name, box, number, host=2):
        ip = IPv4Interface(f"10.2.{number}.{host}/26")
        via = IPv4Address(f"10.2.{number}.1")
        return SandboxAddress(f"flh{name}", box.path, ip, OVERLAY, via)


@pytest.fixture
def site(host, namespace):
    return Site(host, namespace)


@pytest.fixture
def one(site):
    """A container's sandbox with its interface as Docker makes it, and what belongs there."""
    site.bridge(1)
    name, box = site.veth(1), site.sandbox()
    site.move(name, box, 1)
    box.ip("route add default via 172.18.0.1")
    return box, site.wanted(name, box, 1)


def source(box, target):
    """Which source the container's packets to a target have."""
    words = box.run("ip", "-o", "route", "get", target).split()
    return words[words.index("src") + 1]


def test_the_contract(sandboxes, one):
    _, item = one
    check_adapter(sandboxes, [item], (item, replace(item, via=None, overlay=None)))


def test_the_address_is_second_and_is_the_source_towards_the_overlay(sandboxes, one):
    box, item = one
    before = box.run("ip", "route")
    for _ in range(2):
        sandboxes.apply(Plan(add=(item,)))
    shown = box.run("ip", "-o", "-4", "addr", "show", "eth0")
    assert [line.split()[3] for line in shown.splitlines()] == ["172.18.0.2/16", "10.2.1.2/26"]
    assert source(box, "10.2.9.9") == "10.2.1.2"
    assert source(box, "10.2.1.3") == "10.2.1.2"
    assert source(box, "172.18.0.3") == "172.18.0.2"
    assert source(box, "192.0.2.1") == "172.18.0.2"
    # the main table has nothing that keeps Docker from giving another address of the overlay
    added = set(box.run("ip", "route").splitlines()) - set(before.splitlines())
    assert [line.split()[0] for line in added] == ["10.2.1.0/26"]
    assert len(box.run("ip", "rule").splitlines()) == 5
    box.run("ping", "-c", "1", "-W", "2", "10.2.9.9")


def test_what_is_lost_is_seen_and_made_again(sandboxes, one):
    box, item = one
    for damage in (
        "addr del 10.2.1.2/26 dev eth0",
        "route flush table 91",
        "rule del priority 32000",
        "rule del priority 32001",
    ):
        sandboxes.apply(Plan(add=(item,)))
        assert sandboxes.observe() == {item}
        box.ip(damage)
        assert item not in sandboxes.observe(), damage
    sandboxes.apply(Plan(add=(item,)))
    assert sandboxes.observe() == {item}
    assert source(box, "10.2.9.9") == "10.2.1.2"


def test_another_overlay_replaces_the_route(sandboxes, one):
    box, item = one
    sandboxes.apply(Plan(add=(item,)))
    wider = replace(item, overlay=IPv4Network("10.0.0.0/8"))
    sandboxes.apply(Plan(change=((item, wider),)))
    assert box.run("ip", "route", "show", "table", "91").split()[0] == "10.0.0.0/8"
    assert sandboxes.observe() == {wider}


def test_an_internal_network_gives_no_way_out(sandboxes, one):
    box, item = one
    inner = replace(item, overlay=None, via=None)
    sandboxes.apply(Plan(add=(inner,)))
    assert sandboxes.observe() == {inner}
    assert len(box.run("ip", "rule").splitlines()) == 3


def test_two_networks_in_one_sandbox_each_have_theirs(sandboxes, site, one):
    box, first = one
    site.bridge(2)
    name = site.veth(2)
    site.move(name, box, 2, as_="eth1")
    second = site.wanted(name, box, 2)
    both = {first, second}
    sandboxes.apply(Plan(add=(first, second)))
    sandboxes.apply(Plan(add=(second, first)))
    assert sandboxes.observe() == both
    assert source(box, "10.2.9.9") == "10.2.1.2"
    box.ip("link del eth0")
    assert sandboxes.observe() == {second}
    assert source(box, "10.2.9.9") == "10.2.2.2"


def test_it_waits_without_a_word_until_docker_has_put_the_interface_there(sandboxes, site):
    site.bridge(1)
    name, box = site.veth(1), site.sandbox()
    item = site.wanted(name, box, 1)
    check_waiting(sandboxes, item, lambda: site.move(name, box, 1))
    box.ip("link set eth0 down")
    sandboxes.apply(Plan(add=(item,)))
    assert sandboxes.observe() == frozenset()
    box.ip("link set eth0 up")
    sandboxes.apply(Plan(add=(item,)))
    assert sandboxes.observe() == {item}
    site.host.ip(f"link del flh{name}")
    sandboxes.apply(Plan(add=(item,)))
    assert sandboxes.observe() == frozenset()


@pytest.mark.parametrize("kind", ["nowhere", "file", "pipe", "another", "no name", "no text"])
def test_a_sandbox_that_cannot_be_worked_in_is_named(sandboxes, site, one, tmp_path, kind):
    box, item = one
    path = tmp_path / "sandbox"
    if kind == "file":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "another":
        path = site.sandbox().path
    elif kind == "no name":
        path = "/sandbox\0"
    elif kind == "no text":
        path = "/sandbox\ud800"
    words = {
        "nowhere": "No such file or directory",
        "file": "Invalid argument",
        "pipe": "Invalid argument",
        "no name": "embedded null byte",
        "no text": "surrogates not allowed",
        "another": f"the other end of {item.link} is not in it",
    }[kind]
    bad = replace(item, sandbox=str(path))
    said = f"endpoint {item.link[3:]} lacks its lease address 10.2.1.2"
    check_failure(sandboxes, [], bad, said)
    check_failure(sandboxes, [], bad, words)
    sandboxes.apply(Plan(add=(item,)))
    assert sandboxes.observe() == {item}
    assert "eth0" in box.run("ip", "link")


def test_nothing_stays_open_and_this_thread_stays_where_it_is(sandboxes, one):
    _, item = one
    sandboxes.apply(Plan(add=(item,)))
    files, place = Path("/proc/self/fd"), Path("/proc/thread-self/ns/net")
    before, here = len(list(files.iterdir())), place.readlink()
    threads = threading.active_count()
    for _ in range(50):
        sandboxes.apply(Plan(add=(item,)))
        assert sandboxes.observe() == {item}
    assert len(list(files.iterdir())) == before
    assert place.readlink() == here
    assert threading.active_count() == threads


def test_the_kernel_tells_when_the_other_end_comes_up(host, site):
    site.bridge(1)
    with closing(Links()) as netlink:
        risen, drift = list[str](), list[str]()
        stop, heard = threading.Event(), threading.Event()

        def rise(names):
            risen.extend(names)
            heard.set()

        thread = threading.Thread(target=netlink.watch, args=(drift.extend, stop, rise))
        thread.start()
        name, box = site.veth(1), site.sandbox()
        host.ip(f"link set flh{name} group 26220")
        for _ in range(20):  # until it listens
            site.move(name, box, 1)
            if heard.wait(1):
                break
            box.ip("link set eth0 down", f"link set eth0 name flc{name}")
            box.run("ip", "link", "set", f"flc{name}", "netns", host.path)
        stop.set()
        thread.join(LIMIT_S)
    assert risen == [f"flh{name}"]
    assert f"flh{name}" not in drift
