"""The lease from etcd in the reconciler's terms, with what etcd says put in its place."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from driver.core.addresses import Wish, take_address
from driver.errors import Unavailable
from driver.flannel.etcd_source import EtcdSource, Settings
from driver.flannel.local_source import LocalSource
from driver.flannel.membership import MembershipStatus
from driver.flannel.subnet_env import MARK
from driver.ipam import PoolRequest, take_pool
from driver.model.facts import ETCD, External, Facts, Flanneld
from driver.model.interfaces import LeaseStatus
from driver.model.records import Lease, State, replace
from tests.unit.contract import check_source
from tests.unit.fakes import FakeMembership
from tests.unit.sample import LEASE, OVERLAY, PEER, POOL, VTEP

EXTERNAL = External("eth0", IPv4Address("192.0.2.11"), 1500, (IPv4Network("192.0.2.0/24"),))
HERE = Facts(external=EXTERNAL)
SUBNET = IPv4Network("10.2.3.0/24")
HELD = MembershipStatus(OVERLAY, SUBNET, frozenset({PEER}), "held")
OURS = Lease(OVERLAY.network, SUBNET, 1450, "etcd")


def source(
    etcd: FakeMembership,
    tmp_path: Path,
    public_ip: IPv4Address | None = None,
    *,
    auto: bool = False,
) -> EtcdSource:
    settings = Settings(public_ip, tmp_path / "flannel" / "subnet.env", auto)
    return EtcdSource(etcd.start, settings)  # type: ignore[arg-type]


def ask(source: EtcdSource, state: State, facts: Facts) -> LeaseStatus:
    """Ask as the first pass does, and take over what is answered."""
    source.begin(state, facts)
    found = source.current(state, facts)
    return replace(found, problems=(*found.problems, *source.taken_over(found)))


@pytest.mark.parametrize("status", [HELD, MembershipStatus()])
def test_the_contract(tmp_path: Path, status: MembershipStatus) -> None:
    check_source(source(FakeMembership(status), tmp_path), State(), HERE)


def test_a_lease_that_is_held_is_given_and_told_to_others(tmp_path: Path) -> None:
    etcd = FakeMembership(HELD)
    found = ask(source(etcd, tmp_path), State(), HERE)
    assert (found.lease, found.phase, found.problems) == (OURS, "held", ())
    assert (found.overlay, found.peers) == (OVERLAY, frozenset({PEER}))
    assert (tmp_path / "flannel/subnet.env").read_text() == (
        "# written by docker-flannel\n"
        "FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.3.1/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    )
    assert "--bip=10.2.3.1/24" in (tmp_path / "flannel/docker_opts.env").read_text()


def test_looking_changes_nothing(tmp_path: Path) -> None:
    etcd, stored = FakeMembership(HELD), State(OURS, OVERLAY, VTEP, {PEER.id: PEER})
    asked = source(etcd, tmp_path)
    asked.begin(stored, Facts())
    found = asked.current(stored, HERE)
    assert (found.lease, found.phase) == (OURS, "unreachable")
    assert etcd.known == MembershipStatus(), "it is not followed"
    assert not (tmp_path / "flannel").exists()


def test_etcd_is_followed_as_soon_as_there_is_a_way_to_it(tmp_path: Path) -> None:
    etcd, stored = FakeMembership(HELD), State(OURS, OVERLAY, VTEP, {PEER.id: PEER})
    asked = source(etcd, tmp_path)
    assert "no interface to the underlay" in ask(asked, stored, Facts()).problems[0]
    assert etcd.known == MembershipStatus()
    asked.taken_over(asked.current(stored, HERE))
    assert etcd.known == MembershipStatus(OVERLAY, SUBNET, frozenset({PEER}))
    assert (etcd.own.public_ip, etcd.own.local) == (EXTERNAL.ip, HERE.local_addresses)
    assert asked.current(stored, HERE).phase == "held"
    moved = replace(HERE, external=replace(EXTERNAL, ip=IPv4Address("192.0.2.99")))
    asked.taken_over(asked.current(stored, moved))
    assert etcd.own.public_ip == IPv4Address("192.0.2.99")


def test_the_mac_is_made_once_and_kept(tmp_path: Path) -> None:
    etcd = FakeMembership(HELD)
    first = ask(source(etcd, tmp_path), State(), HERE).vtep
    assert first is not None
    assert int(first.mac[:2], 16) & 3 == 2, "locally administered, unicast"
    again = ask(source(etcd, tmp_path), State(vtep=first), HERE).vtep
    assert again == first
    assert (first.public_ip, first.mac) == (etcd.own.public_ip, etcd.own.mac)
    moved = replace(HERE, external=replace(EXTERNAL, ip=IPv4Address("192.0.2.99")))
    assert ask(source(etcd, tmp_path), State(vtep=first), moved).vtep == replace(
        first, public_ip=IPv4Address("192.0.2.99")
    )
    public = IPv4Address("203.0.113.1")
    told = ask(source(etcd, tmp_path, public), State(vtep=first), HERE).vtep
    assert told == replace(first, public_ip=public)


def test_what_is_stored_stands_until_etcd_answers(tmp_path: Path) -> None:
    stored = State(OURS, OVERLAY, VTEP, {PEER.id: PEER})
    etcd = FakeMembership(
        MembershipStatus(OVERLAY, SUBNET, frozenset({PEER}), "unreachable", ("no etcd",))
    )
    found = ask(source(etcd, tmp_path), stored, HERE)
    assert etcd.known == MembershipStatus(OVERLAY, SUBNET, frozenset({PEER}))
    assert (found.lease, found.vtep, found.problems) == (OURS, VTEP, ("no etcd",))
    gone = ask(source(etcd, tmp_path), stored, Facts())
    assert (gone.lease, gone.overlay, gone.vtep) == (OURS, OVERLAY, VTEP)
    assert gone.peers == frozenset({PEER})
    assert "no interface to the underlay" in gone.problems[0]


@pytest.mark.parametrize("phase", ["lost", "refused"])
def test_a_lease_that_is_lost_stays_in_use_but_gives_nothing(tmp_path: Path, phase: str) -> None:
    etcd = FakeMembership(MembershipStatus(OVERLAY, None, frozenset(), phase))
    used = State(OURS, OVERLAY, VTEP, pools={POOL.id: POOL})
    assert ask(source(etcd, tmp_path), used, HERE).lease == replace(OURS, held=False)
    assert ask(source(etcd, tmp_path), replace(used, pools={}), HERE).lease is None


def test_the_source_does_not_change_while_networks_use_the_lease(tmp_path: Path) -> None:
    used = State(LEASE, pools={POOL.id: POOL})
    found = ask(source(FakeMembership(HELD), tmp_path), used, HERE)
    assert found.lease == LEASE
    assert "a lease from etcd, but 10.2.3.0/24 from standalone is in use" in found.problems[-1]
    assert not (tmp_path / "flannel").exists()
    back = LocalSource("auto", OVERLAY.network, 24, tmp_path / "none")
    kept = back.current(State(OURS, pools={POOL.id: POOL}), HERE)
    assert kept.lease == OURS
    assert "from etcd is in use: block 10.2.3.0/27 of no network here;" in kept.problems[0]
    assert back.current(State(OURS), HERE).lease != OURS


def test_a_lan_in_the_lease_is_told(tmp_path: Path) -> None:
    inside = replace(HERE, lans=(IPv4Network("10.2.3.0/25"),))
    told = ask(source(FakeMembership(HELD), tmp_path), State(), inside).problems
    assert told == (
        "the lease 10.2.3.0/24 overlaps 10.2.3.0/25, a LAN of this host: choose a Network without "
        "it, or SubnetMin and SubnetMax around it, and have this host get another",
    )


def test_what_the_host_uses_itself_is_told_to_the_membership(tmp_path: Path) -> None:
    etcd, here = FakeMembership(HELD), replace(HERE, places=((IPv4Address("10.2.99.1"), ETCD),))
    ask(source(etcd, tmp_path), State(), here)
    assert etcd.own.local == here.local_addresses


def test_a_file_that_cannot_be_written_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "flannel").write_text("in the way")
    asked = source(FakeMembership(HELD), tmp_path)
    assert "cannot be written" in ask(asked, State(), HERE).problems[0]
    (tmp_path / "flannel").unlink()
    assert ask(asked, State(), HERE).problems == ()
    assert (tmp_path / "flannel/subnet.env").exists()


def test_a_lost_lease_gives_neither_blocks_nor_addresses() -> None:
    state = State(replace(LEASE, held=False), pools={POOL.id: POOL})
    with pytest.raises(Unavailable, match="is lost, and another host may use it"):
        take_pool(state, PoolRequest(), {}, "beef", 0.0)
    with pytest.raises(Unavailable, match="is lost, and another host may use it"):
        take_address(state, POOL, Wish(), 0.0)


# --- beside a flanneld ---

FOREIGN = Flanneld(frozenset({("flannel.1", 1, 8472)}))
WAITS = Flanneld(process=7)
OWN = frozenset({("flannel.1", "02:00:00:00:00:01")})
LATER = Flanneld(own=OWN, process=7)
FILE = """FLANNEL_NETWORK=10.2.0.0/16
FLANNEL_SUBNET=10.2.3.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
"""
THEIRS = Lease(OVERLAY.network, SUBNET, 1450, "subnet-file")
ELSEWHERE = replace(OURS, subnet=IPv4Network("10.2.9.0/24"))
LOST = replace(ELSEWHERE, held=False)
BLOCKS = {POOL.id: POOL}


def beside(
    tmp_path: Path, seen: Flanneld, state: State, *, auto: bool, file: str | None = FILE
) -> LeaseStatus:
    """Ask while a flanneld is seen; whatever is answered, its file stays as it is."""
    env = tmp_path / "flannel/subnet.env"
    env.parent.mkdir(exist_ok=True)
    if file is not None:
        env.write_text(file)
    found = ask(
        source(FakeMembership(HELD), tmp_path, auto=auto), state, replace(HERE, flanneld=seen)
    )
    assert (env.read_text() if env.exists() else None) == file
    return found


@pytest.mark.parametrize("seen", [FOREIGN, WAITS])
@pytest.mark.parametrize(
    ("state", "lease"),
    [
        (State(), None),
        (State(OURS), None),
        (State(ELSEWHERE, pools=BLOCKS), LOST),
        (State(THEIRS, pools=BLOCKS), THEIRS),
        (State(LEASE, pools=BLOCKS), LEASE),
    ],
)
def test_etcd_that_was_asked_for_is_refused(
    tmp_path: Path, seen: Flanneld, state: State, lease: Lease | None
) -> None:
    found = beside(tmp_path, seen, state, auto=False)
    what = "the device flannel.1" if seen is FOREIGN else "the process 7"
    assert (found.lease, found.phase, found.refusal) == (lease, "beside", found.problems[0])
    assert found.refusal == (
        f"a flanneld on this host has its flannel lease, as {what} shows: set "
        "DOCKER_FLANNEL_LEASE=subnet-file to use that lease, or stop flanneld and delete its device"
    )


@pytest.mark.parametrize(
    ("state", "lease", "words"),
    [
        (State(), THEIRS, ""),
        (State(ELSEWHERE), THEIRS, ""),
        (State(OURS, pools=BLOCKS), THEIRS, ""),
        (State(replace(THEIRS, mtu=9), pools=BLOCKS), THEIRS, ""),
        (State(ELSEWHERE, pools=BLOCKS), LOST, "shows, 10.2.3.0/24, but another is in use: block"),
        (State(LEASE, pools=BLOCKS), LEASE, "shows, 10.2.3.0/24, but another is in use: block"),
    ],
)
def test_auto_uses_the_lease_of_the_flanneld(
    tmp_path: Path, state: State, lease: Lease, words: str
) -> None:
    found = beside(tmp_path, FOREIGN, state, auto=True)
    assert (found.lease, found.phase) == (lease, "beside")
    assert words in found.refusal
    assert bool(words) == bool(found.problems) != bool(found.note)
    assert found.overlay == OVERLAY, "the rules of direct routing need it"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (None, "is not there; start flanneld"),
        (f"{MARK}\n{FILE}", "was written by this plugin earlier"),
    ],
)
def test_auto_waits_for_the_file_of_the_flanneld(
    tmp_path: Path, file: str | None, words: str
) -> None:
    for state, lease in (
        (State(), None),
        (State(OURS), None),
        (State(OURS, pools=BLOCKS), replace(OURS, held=False)),
        (State(THEIRS), THEIRS),
    ):
        found = beside(tmp_path, FOREIGN, state, auto=True, file=file)
        assert found.lease == lease
        assert words in found.refusal


@pytest.mark.parametrize("auto", [False, True])
def test_a_flanneld_that_comes_later_is_named_and_all_goes_on(tmp_path: Path, auto: bool) -> None:
    found = beside(tmp_path, LATER, State(OURS, OVERLAY, VTEP, pools=BLOCKS), auto=auto)
    assert (found.lease, found.phase, found.peers) == (OURS, "beside", HELD.peers)
    assert found.problems == (
        "a flanneld runs beside this plugin, as the process 7 shows: nothing is written to etcd "
        "any more; stop flanneld, or leave the lease to it with DOCKER_FLANNEL_LEASE=subnet-file",
    )
    # but with a lease that is not known any more, all there is is the flanneld's
    assert beside(tmp_path, LATER, State(), auto=auto).lease == (THEIRS if auto else None)


def test_when_the_flanneld_is_gone_its_lease_goes_on_as_ours(tmp_path: Path) -> None:
    etcd, used = FakeMembership(HELD), State(THEIRS, pools=BLOCKS)
    assert ask(source(etcd, tmp_path, auto=True), used, HERE).lease == OURS
    assert etcd.known.subnet == SUBNET
    other = FakeMembership(replace(HELD, subnet=IPv4Network("10.2.9.0/24")))
    found = ask(source(other, tmp_path, auto=True), used, HERE)
    assert found.lease == THEIRS
    assert "10.2.3.0/24 from subnet-file is in use" in found.problems[0]


def test_a_device_that_was_handed_over_keeps_the_mac_that_others_know(tmp_path: Path) -> None:
    here = replace(HERE, flanneld=Flanneld(own=OWN))
    for state in (State(THEIRS, OVERLAY, VTEP, pools=BLOCKS), State(THEIRS), State()):
        found = ask(source(FakeMembership(HELD), tmp_path, auto=True), state, here)
        assert found.vtep == replace(VTEP, mac="02:00:00:00:00:01")
    held = ask(source(FakeMembership(HELD), tmp_path), State(OURS, OVERLAY, VTEP), here)
    assert held.vtep == VTEP, "what changes the MAC of a held lease's device is undone"
