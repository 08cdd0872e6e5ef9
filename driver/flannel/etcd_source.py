"""The lease that this host holds in etcd, or that of a flanneld which has the network."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from driver import vxlan
from driver.errors import FlannelError, StoreError
from driver.flannel import flanneld
from driver.flannel.lease_types import ThisHost, users
from driver.flannel.local_source import Stamp, file_stamp, kept
from driver.flannel.membership import Membership, MembershipStatus
from driver.flannel.subnet_env import flannelds_lease, write_docker_options, write_subnet_env
from driver.model.facts import External, Facts
from driver.model.interfaces import LeaseStatus
from driver.model.records import Lease, Overlay, State, Vtep, replace

TOLD = ("refused", "beside")  # phases of which a call is told the problem
FIRST_S = 1.0  # a host without a lease can do nothing for Docker anyway
DOCKER_OPTIONS = "docker_opts.env"  # beside subnet.env

Start = Callable[[ThisHost, MembershipStatus], Membership]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set: the public IP where it is not the interface's, and the lease file.

    `auto`: where a flanneld has the lease, its file may be used.
    """

    public_ip: IPv4Address | None
    file: Path
    auto: bool = False


class EtcdSource:
    """A lease that this host takes in etcd itself, as flanneld would."""

    def __init__(self, start: Start, settings: Settings) -> None:
        """`start` begins to follow etcd."""
        self._start, self._settings = start, settings
        self._membership: Membership | None = None
        self._known = MembershipStatus()
        self._mac = _new_mac()
        self._written: Lease | None = None

    def stamp(self) -> Stamp:
        """Return a value that changes when somebody else writes the lease file.

        A change of the membership is told by itself.
        """
        return file_stamp(self._settings.file)

    def begin(self, state: State, facts: Facts) -> None:
        """Follow etcd; where no lease is stored, wait a moment for what it says."""
        self._known = _stored(state)
        self._follow(self.current(state, facts))
        if self._membership is not None and state.lease is None:
            self._membership.wait_until_known(FIRST_S)

    def current(self, state: State, facts: Facts) -> LeaseStatus:
        """Return what etcd has for this host; until etcd answers that is what is stored."""
        external = facts.external
        if external is None:
            return LeaseStatus(
                state.lease,
                "waiting",
                ("no interface to the underlay: this host has no default route, or FLANNELD_IFACE "
                 "or FLANNELD_PUBLIC_IP names none of its own",),
                state.overlay,
                state.vtep,
                frozenset(state.peers.values()),
            )  # fmt: skip
        public_ip = self._settings.public_ip or external.ip
        status = self._membership.status() if self._membership else _stored(state)
        overlay = status.overlay
        vtep = Vtep(public_ip, self._mac_of(state, facts, overlay))
        found = LeaseStatus(
            None, status.phase, status.problems, overlay, vtep, status.peers,
            local=facts.local_addresses,
        )  # fmt: skip
        if what := facts.flanneld.sign(overlay):
            if overlay and facts.flanneld.joined(overlay) and _from_etcd(state.lease):
                return replace(
                    found,
                    lease=state.lease,
                    phase="beside",
                    problems=(flanneld.beside(what), *status.problems),
                )
            return self._yield(found, state, what)
        lease = self._lease(state, status, external)
        problems = list(status.problems)
        if lease is not None and lease.source != "etcd":
            problems.append(kept(lease, "a lease from etcd", users(state)))
        elif overlay is not None:
            problems += vxlan.problems(overlay, status.peers, vtep, external)
            if lease is not None:
                problems += filter(None, [facts.lan_fault(lease)])
        refusal = status.problems[0] if status.phase in TOLD and status.problems else ""
        return replace(found, lease=lease, problems=tuple(problems), refusal=refusal)

    def _mac_of(self, state: State, facts: Facts, overlay: Overlay | None) -> str:
        """Return this host's MAC.

        A device with the plugin's mark, before the plugin had a lease in etcd, is a flanneld's that
        `migrate` handed over: the other hosts know its MAC.
        """
        handed_over = "" if _from_etcd(state.lease) else facts.flanneld.own_mac(overlay)
        return handed_over or (state.vtep.mac if state.vtep else self._mac)

    def _yield(self, found: LeaseStatus, state: State, what: str) -> LeaseStatus:
        """Leave the network to the flanneld that has it; use its lease if that may be."""
        why = flanneld.refusal(what)
        if self._settings.auto:
            file = self._settings.file
            try:
                lease = flannelds_lease(file)
            except FlannelError as error:
                why = f"{flanneld.has_it(what)}, but {error}"
            else:
                if _may_become(state, lease):
                    note = flanneld.used(what, str(file))
                    return replace(found, lease=lease, phase="beside", problems=(), note=note)
                used = users(state)
                why = f"{flanneld.has_it(what)}, {lease.subnet}, but another is in use: {used}"
        left = _left(state, auto=self._settings.auto)
        return replace(found, lease=left, phase="beside", problems=(why,), refusal=why)

    def taken_over(self, status: LeaseStatus) -> tuple[str, ...]:
        """Pass on what this host is to the membership, and a new lease to flannel's scripts."""
        self._follow(status)
        lease = status.lease
        if lease is None or not lease.held or lease.source != "etcd" or lease == self._written:
            return ()
        if status.local is None or status.phase == "beside":
            return ()  # nothing is known, or a flanneld writes them
        try:
            write_subnet_env(self._settings.file, lease)
            write_docker_options(self._settings.file.with_name(DOCKER_OPTIONS), lease)
        except StoreError as error:
            return (str(error),)
        self._written = lease
        return ()

    def _follow(self, status: LeaseStatus) -> None:
        """Start the membership, or tell it what this host is, once that is known."""
        if status.vtep is None or status.local is None:
            return
        host = ThisHost(status.vtep.public_ip, status.vtep.mac, local=status.local)
        if self._membership is None:
            self._membership = self._start(host, self._known)
        self._membership.set_host(host)

    def _lease(self, state: State, status: MembershipStatus, external: External) -> Lease | None:
        """Return the lease. One that is lost stays while it is in use, but gives no addresses.

        The lease of a flanneld that is gone becomes ours if the subnet is the same.
        """
        overlay, subnet, stored = status.overlay, status.subnet, state.lease
        same = stored is not None and (stored.source, stored.subnet) == ("subnet-file", subnet)
        if stored is not None and stored.source != "etcd" and state.pools and not same:
            return stored
        if overlay is not None and subnet is not None:
            mtu = vxlan.container_mtu(overlay, external)
            return Lease(overlay.network, subnet, mtu, "etcd")
        if stored is not None and state.pools:
            return replace(stored, held=False)
        return None


def _stored(state: State) -> MembershipStatus:
    """Return what is known before etcd answers."""
    lease = state.lease
    subnet = lease.subnet if lease and lease.source in ("etcd", "subnet-file") else None
    return MembershipStatus(state.overlay, subnet, frozenset(state.peers.values()))


def _from_etcd(lease: Lease | None) -> bool:
    return lease is not None and lease.source == "etcd"


def _may_become(state: State, lease: Lease) -> bool:
    """Whether a flanneld's lease can replace the stored one: no networks use another subnet."""
    stored = state.lease
    return (
        stored is None
        or not state.pools
        or stored.source == "subnet-file"
        or (stored.source == "etcd" and stored.subnet == lease.subnet)
    )


def _left(state: State, *, auto: bool) -> Lease | None:
    """Return what remains of the stored lease when a flanneld has taken the network."""
    stored = state.lease
    if stored is None or not (state.pools or (auto and stored.source == "subnet-file")):
        return None
    return replace(stored, held=False) if stored.source == "etcd" else stored


def _new_mac() -> str:
    """Return a random MAC, locally administered and unicast."""
    first, *rest = secrets.token_bytes(6)
    return bytes([first & 0xFC | 0x02, *rest]).hex(":")
