"""The lease from etcd in the reconciler's terms, with what etcd says put in its place."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from driver.addresses import Wish, take_address
from driver.errors import Unavailable
from driver.etcd_leases import EtcdLeases
from driver.facts import External, Facts
from driver.ipam import PoolRequest, take_pool
from driver.leases import Leases
from driver.membership import Snapshot
from driver.model import Lease, State, Vtep, replace
from tests.unit.sample import LEASE, OVERLAY, PEER, POOL, VTEP

EXTERNAL = External("eth0", IPv4Address("192.0.2.11"), 1500, (IPv4Network("192.0.2.0/24"),))
HERE = Facts(external=EXTERNAL)
SUBNET = IPv4Network("10.2.3.0/24")
HELD = Snapshot(OVERLAY, SUBNET, frozenset({PEER}), "held")
OURS = Lease(OVERLAY.network, SUBNET, 1450, "etcd")


class Etcd:
    """A membership that says what a test wants."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.now, self.known, self.vtep = snapshot, Snapshot(), VTEP

    def start(self, vtep: Vtep, known: Snapshot) -> Etcd:
        self.vtep, self.known = vtep, known
        return self

    def identify(self, vtep: Vtep) -> None:
        self.vtep = vtep

    def snapshot(self) -> Snapshot:
        return self.now


def source(etcd: Etcd, tmp_path: Path, public_ip: IPv4Address | None = None) -> EtcdLeases:
    return EtcdLeases(etcd.start, public_ip, tmp_path / "flannel" / "subnet.env")  # type: ignore[arg-type]


def test_a_lease_that_is_held_is_given_and_told_to_others(tmp_path: Path) -> None:
    etcd = Etcd(HELD)
    found = source(etcd, tmp_path).current(State(), HERE)
    assert (found.lease, found.phase, found.problems) == (OURS, "held", ())
    assert (found.overlay, found.peers) == (OVERLAY, frozenset({PEER}))
    assert (tmp_path / "flannel/subnet.env").read_text() == (
        "# written by docker-flannel\n"
        "FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.3.1/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    )
    assert "--bip=10.2.3.1/24" in (tmp_path / "flannel/docker_opts.env").read_text()


def test_the_mac_is_made_once_and_kept(tmp_path: Path) -> None:
    etcd = Etcd(HELD)
    first = source(etcd, tmp_path).current(State(), HERE).vtep
    assert first is not None
    assert int(first.mac[:2], 16) & 3 == 2, "locally administered, unicast"
    again = source(etcd, tmp_path).current(State(vtep=first), HERE).vtep
    assert again == first == etcd.vtep
    moved = replace(HERE, external=replace(EXTERNAL, ip=IPv4Address("192.0.2.99")))
    assert source(etcd, tmp_path).current(State(vtep=first), moved).vtep == replace(
        first, public_ip=IPv4Address("192.0.2.99")
    )
    public = IPv4Address("203.0.113.1")
    told = source(etcd, tmp_path, public).current(State(vtep=first), HERE).vtep
    assert told == replace(first, public_ip=public)


def test_what_is_stored_stands_until_etcd_answers(tmp_path: Path) -> None:
    stored = State(OURS, OVERLAY, VTEP, {PEER.id: PEER})
    etcd = Etcd(Snapshot(OVERLAY, SUBNET, frozenset({PEER}), "unreachable", ("no etcd",)))
    found = source(etcd, tmp_path).current(stored, HERE)
    assert etcd.known == Snapshot(OVERLAY, SUBNET, frozenset({PEER}))
    assert (found.lease, found.vtep, found.problems) == (OURS, VTEP, ("no etcd",))
    gone = source(etcd, tmp_path).current(stored, Facts())
    assert (gone.lease, gone.overlay, gone.vtep) == (OURS, OVERLAY, VTEP)
    assert gone.peers == frozenset({PEER})
    assert "no interface to the underlay" in gone.problems[0]


@pytest.mark.parametrize("phase", ["lost", "refused"])
def test_a_lease_that_is_lost_stays_in_use_but_gives_nothing(tmp_path: Path, phase: str) -> None:
    etcd = Etcd(Snapshot(OVERLAY, None, frozenset(), phase))
    used = State(OURS, OVERLAY, VTEP, pools={POOL.id: POOL})
    assert source(etcd, tmp_path).current(used, HERE).lease == replace(OURS, held=False)
    assert source(etcd, tmp_path).current(replace(used, pools={}), HERE).lease is None


def test_the_source_does_not_change_while_networks_use_the_lease(tmp_path: Path) -> None:
    used = State(LEASE, pools={POOL.id: POOL})
    found = source(Etcd(HELD), tmp_path).current(used, HERE)
    assert found.lease == LEASE
    assert "the lease shall come from etcd, but networks use" in found.problems[-1]
    assert not (tmp_path / "flannel").exists()
    back = Leases("auto", OVERLAY.network, 24, tmp_path / "none")
    kept = back.current(State(OURS, pools={POOL.id: POOL}), HERE)
    assert kept.lease == OURS
    assert "from etcd: it is kept until they are removed" in kept.problems[0]
    assert back.current(State(OURS), HERE).lease != OURS


def test_a_file_that_cannot_be_written_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "flannel").write_text("in the way")
    asked = source(Etcd(HELD), tmp_path)
    assert "cannot be written" in asked.current(State(), HERE).problems[0]
    (tmp_path / "flannel").unlink()
    assert asked.current(State(), HERE).problems == ()
    assert (tmp_path / "flannel/subnet.env").exists()


def test_a_lost_lease_gives_neither_blocks_nor_addresses() -> None:
    state = State(replace(LEASE, held=False), pools={POOL.id: POOL})
    with pytest.raises(Unavailable, match="is lost, and another host may use it"):
        take_pool(state, PoolRequest(), (), "beef", 0.0)
    with pytest.raises(Unavailable, match="is lost, and another host may use it"):
        take_address(state, POOL, Wish(), 0.0)
