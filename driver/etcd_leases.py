"""The lease from etcd, in the terms of the reconciler. Imports nouns, `membership`, `vxlan`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from driver import vxlan
from driver.errors import StoreError
from driver.facts import External, Facts
from driver.leases import Standing, kept
from driver.membership import Membership, Snapshot
from driver.model import Lease, State, Vtep, replace
from driver.subnet_env import write_docker_options, write_subnet_env

FIRST_S = 1.0  # a host without a lease can do nothing for Docker anyway
DOCKER_OPTIONS = "docker_opts.env"  # beside subnet.env

Start = Callable[[Vtep, Snapshot], Membership]


class EtcdLeases:
    """A lease that this host takes in etcd itself, as flanneld would."""

    def __init__(self, start: Start, public_ip: IPv4Address | None, file: Path) -> None:
        """`start` begins to follow etcd; `public_ip` is set where it is not the interface's."""
        self._start, self._public_ip, self._file = start, public_ip, file
        self._membership: Membership | None = None
        self._mac = _new_mac()
        self._written: Lease | None = None

    def stamp(self) -> None:
        """Give nothing: a change of the membership is told by itself."""

    def begin(self, state: State, facts: Facts) -> None:
        """Begin to follow etcd; where no lease is stored, wait a moment for what it says."""
        self.current(state, facts)
        if self._membership is not None and state.lease is None:
            self._membership.hear(FIRST_S)

    def current(self, state: State, facts: Facts) -> Standing:
        """Say what etcd has for this host; what is stored stands as long as etcd says nothing."""
        external = facts.external
        if external is None:
            return Standing(
                state.lease,
                "waiting",
                ("no interface to the underlay: this host has no default route, or FLANNELD_IFACE "
                 "or FLANNELD_PUBLIC_IP names none of its own",),
                state.overlay,
                state.vtep,
                frozenset(state.peers.values()),
            )  # fmt: skip
        vtep = Vtep(self._public_ip or external.ip, state.vtep.mac if state.vtep else self._mac)
        snapshot = self._follow(vtep, state)
        overlay = snapshot.overlay
        lease = self._lease(state, snapshot, external)
        problems = list(snapshot.problems)
        if lease is not None and lease.source != "etcd":
            problems.append(kept(lease, "etcd"))
        elif overlay is not None:
            problems += vxlan.problems(overlay, snapshot.peers, vtep, external)
            problems += self._tell_others(lease)
        return Standing(lease, snapshot.state, tuple(problems), overlay, vtep, snapshot.peers)

    def _follow(self, vtep: Vtep, state: State) -> Snapshot:
        if self._membership is None:
            ours = state.lease if state.lease and state.lease.source == "etcd" else None
            known = Snapshot(
                state.overlay, ours.subnet if ours else None, frozenset(state.peers.values())
            )
            self._membership = self._start(vtep, known)
        self._membership.identify(vtep)
        return self._membership.snapshot()

    def _lease(self, state: State, snapshot: Snapshot, external: External) -> Lease | None:
        """Give the lease held; one that is lost stays, without giving, while it is in use."""
        overlay, subnet = snapshot.overlay, snapshot.subnet
        if state.lease is not None and state.lease.source != "etcd" and state.pools:
            return state.lease
        if overlay is not None and subnet is not None:
            mtu = vxlan.container_mtu(overlay, external)
            return Lease(overlay.network, subnet, mtu, "etcd")
        if state.lease is not None and state.pools:
            return replace(state.lease, held=False)
        return None

    def _tell_others(self, lease: Lease | None) -> list[str]:
        """Write the files that flanneld and its scripts write, once for each lease."""
        if lease is None or not lease.held or lease == self._written:
            return []
        try:
            write_subnet_env(self._file, lease)
            write_docker_options(self._file.with_name(DOCKER_OPTIONS), lease)
        except StoreError as error:
            return [str(error)]
        self._written = lease
        return []


def _new_mac() -> str:
    """Choose a MAC: locally administered, unicast."""
    first, *rest = secrets.token_bytes(6)
    return bytes([first & 0xFC | 0x02, *rest]).hex(":")
