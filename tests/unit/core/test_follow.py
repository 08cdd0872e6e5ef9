"""News of peers: taken over by the difference, at once, and a flood of them in few steps."""

from __future__ import annotations

import threading
import time
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.core.dataplane import Dataplane
from driver.core.desire import desire
from driver.core.loop import Loop
from driver.core.reconciler import Reconciler
from driver.errors import HostError, StoreError
from driver.flannel.membership import Membership
from driver.flannel.records import lease_value
from driver.model.facts import External
from driver.model.interfaces import LeaseStatus
from driver.model.objects import Fdb, Vxlan, worded
from driver.model.records import Lease, Overlay, Peer, State, Vtep, replace
from tests.unit.etcd_fake import FakeRegistry
from tests.unit.etcd_member import CONFIG, PREFIX, this_host
from tests.unit.fake_adapters import FakeKernel, FakeOverlay, FakeSurvey, nothing
from tests.unit.fakes import FACTS, FakeJournal, FakeSource, World, seeded

NETWORK = IPv4Network("10.5.0.0/16")
OVERLAY = Overlay(NETWORK, 24, NETWORK[256], NETWORK[0xFF00], "vxlan")
VTEP = Vtep(IPv4Address("192.0.2.1"), "02:00:00:00:00:01")
LEASE = Lease(NETWORK, IPv4Network("10.5.1.0/24"), 1450, "etcd")
HERE = replace(FACTS, external=External("eth0", VTEP.public_ip, 1500))


def peer(number: int, host: int | None = None) -> Peer:
    """Return a subnet's lease, of a host of its own or of a certain one."""
    host = number if host is None else host
    ip, mac = IPv4Address(f"192.0.2.{host}"), f"02:00:00:00:00:{host:02x}"
    return Peer(IPv4Network(f"10.5.{number}.0/24"), ip, "vxlan", mac)


class Said(FakeSource):
    """A lease that is held, with peers."""

    def __init__(self, *peers: Peer) -> None:
        super().__init__(LeaseStatus(LEASE, "held", (), OVERLAY, VTEP, frozenset(peers)))

    def say(self, *peers: Peer) -> None:
        self.now = replace(self.now, peers=frozenset(peers))


class Node:
    """A host without containers, after its first pass."""

    def __init__(self, *peers: Peer) -> None:
        self.world = World()
        self.said, self.ways = Said(*peers), FakeOverlay(self.world)
        self.journal = FakeJournal(self.world)
        survey = FakeSurvey(FakeKernel(self.world))
        survey.now = HERE
        self.core = Reconciler(self.journal, Dataplane([self.ways]), survey, self.said)
        Loop(self.core).boot()
        self.core.woken.clear()

    def woken(self) -> bool:
        return self.core.woken.is_set()

    def agrees(self) -> bool:
        wanted = {t for t in desire(self.core.state, HERE) if isinstance(t, FakeOverlay.kinds)}
        return self.ways.observe() == wanted and self.journal.load() == self.core.state

    @property
    def peers(self) -> set[Peer]:
        return set(self.core.state.peers.values())


def test_the_pass_that_leaves_the_lease_to_a_flanneld_leaves_it_the_overlay() -> None:
    node = Node(peer(2), peer(3))
    before = node.ways.observe()
    assert {type(item) for item in before} == set(FakeOverlay.kinds)
    node.said.now = replace(node.said.now, lease=replace(LEASE, source="subnet-file"))
    for _ in range(3):
        node.core.converge()
        assert node.ways.observe() == before
    node.said.now = replace(node.said.now, lease=None)
    node.core.converge()
    assert not node.ways.observe(), "without a flanneld it is ours"


def test_news_of_peers_are_on_the_host_and_on_disk_without_a_look() -> None:
    node = Node(peer(2))
    looks = node.ways.looks
    node.said.say(peer(2), peer(3))
    node.core.peers_changed()
    assert node.ways.looks == looks
    assert not node.woken()
    assert node.peers == {peer(2), peer(3)}
    assert node.core.lease_status == node.said.now
    assert node.agrees()
    node.said.say()
    node.core.peers_changed()
    assert not node.peers
    assert {type(t) for t in node.ways.observe()} == {Vxlan}


def test_no_news_change_nothing() -> None:
    node = Node(peer(2))
    steps = node.world.steps
    node.said.now = replace(node.said.now, phase="unreachable", problems=("no etcd",))
    node.core.peers_changed()
    assert node.world.steps == steps
    assert node.core.lease_status.phase == "unreachable"
    assert not node.woken()


def test_what_two_leases_of_one_host_share_stays_as_long_as_one_of_them() -> None:
    node = Node(peer(2, host=9), peer(3, host=9))
    node.said.say(peer(3, host=9))
    node.core.peers_changed()
    assert node.agrees()
    assert len([t for t in node.ways.observe() if isinstance(t, Fdb)]) == 1
    node.said.say(peer(3, host=8))
    node.core.peers_changed()
    assert node.agrees()


def test_whatever_news_come_the_host_is_as_a_pass_would_make_it() -> None:
    source, node = seeded(7), Node()
    for _ in range(300):
        subnets = source.sample(range(2, 12), source.randrange(8))
        node.said.say(*(peer(n, host=source.randrange(20, 25)) for n in subnets))
        node.core.peers_changed()
        assert not node.woken()
        assert node.agrees()


def test_before_the_first_pass_nothing_is_taken_over() -> None:
    survey = FakeSurvey(FakeKernel(World()))
    core = Reconciler(FakeJournal(), Dataplane([FakeOverlay()]), survey, Said(peer(2)))
    core.peers_changed()
    assert core.state == State()


def test_a_new_lease_is_left_to_a_pass() -> None:
    node = Node(peer(2))
    node.said.now = replace(node.said.now, vtep=replace(VTEP, public_ip=IPv4Address("192.0.2.77")))
    node.said.say(peer(3))
    node.core.peers_changed()
    assert node.woken()
    assert node.peers == {peer(2)}
    node.core.converge()
    assert node.peers == {peer(3)}
    assert node.agrees()


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_fails_is_left_to_a_pass_which_tells(*, on_disk: bool) -> None:
    node = Node(peer(2))
    node.said.say(peer(2), peer(3))
    if on_disk:
        node.journal.error = StoreError("disk full")
    else:
        node.ways.refuse = lambda t: HostError("no") if "10.5.3.0/24" in worded(t.key) else None
    node.core.peers_changed()
    assert node.woken()
    assert node.peers == {peer(2)}
    node.core.attempt()
    assert node.core.history.last is not None
    assert node.core.history.last.errors
    node.journal.error, node.ways.refuse = None, nothing
    node.core.attempt()
    assert node.agrees()
    assert node.peers == {peer(2), peer(3)}


def test_a_flood_of_news_is_taken_over_in_few_steps() -> None:
    """One by one they would take many times as long as they come."""
    registry, stop, calls, count = FakeRegistry(), threading.Event(), list[int](), 500
    registry.change((f"{PREFIX}/config", CONFIG))

    def slowly() -> None:
        calls.append(len(member.status().peers))
        time.sleep(0.01)

    member = Membership(registry, PREFIX, this_host(1), changed=slowly)
    thread = threading.Thread(target=member.run, args=(stop,), daemon=True)
    thread.start()
    member.wait_until_known(30)
    for n in range(count):
        key = f"{PREFIX}/subnets/10.5.{n >> 3}.{n % 8 * 32}-27"
        mac = f"06:00:00:00:{n >> 8:02x}:{n & 255:02x}"
        registry.change((key, lease_value(IPv4Address(0xC6336400 + n), "vxlan", 1, mac)))
    end = time.monotonic() + 60
    while calls[-1] < count - 8:  # some may be in the subnet of this host
        assert time.monotonic() < end
        time.sleep(0.01)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert len(calls) < count / 5


def test_each_problem_of_the_lease_is_logged_once_also_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = Node()
    node.said.now = replace(node.said.now, problems=("one", "two"))
    node.core.peers_changed()
    node.said.now = replace(node.said.now, problems=("two", "three"))
    node.core.attempt()
    node.core.attempt()
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert told == ["one", "two", "three"]
    caplog.clear()
    again = Reconciler(node.journal, Dataplane([node.ways]), node.core.survey, node.said)
    Loop(again).boot()
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == ["two", "three"]
