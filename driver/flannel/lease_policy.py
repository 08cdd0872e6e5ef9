"""What to do about this host's lease, decided from what etcd has. No I/O, no clock.

flannel's rules, but every write is bound to the revision that was seen, another host's key is never
written, and a second host with our public IP is known by its MAC, one that is a copy of this one by
its public IP. Imports `flannel`, `lease_view`, `peers`, `model`.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from math import inf

from driver.flannel.lease_types import (
    Choose,
    Delete,
    EtcdView,
    HeldLease,
    LeaseTimes,
    PolicyState,
    Step,
    ThisHost,
    Write,
    identity,
)
from driver.flannel.records import (
    AllowedSubnets,
    LeaseRecord,
    compatible,
    lease_value,
    taken_subnets,
)
from driver.model.records import Overlay

SOON_S = 60.0  # a lease that something else wrote with our own values is written again so soon


def step(state: PolicyState, view: EtcdView, host: ThisHost, now: float, choose: Choose) -> Step:
    """Decide the next step."""
    overlay, problem = _overlay(state, view, host)
    problems = (problem,) if problem else ()
    if overlay is None:
        return Step(state, "waiting", state.subnet, problems=problems)
    state = replace(state, overlay=overlay)
    offer = AllowedSubnets(overlay, () if host.in_use else host.local.lans)
    found = _keep(state, offer, view, host, now) if state.held else None
    if found is None:
        found = _acquire(replace(state, held=None), offer, view, host, choose)
    return replace(found, problems=problems + found.problems)


def written(
    state: PolicyState, write: Write, revision: int, now: float, terms: LeaseTimes
) -> PolicyState:
    """Remember a write that etcd has accepted."""
    moved = state.subnet not in (None, write.subnet)
    due = now + terms.ttl_s - terms.margin_s
    return replace(
        state,
        subnet=write.subnet,
        held=HeldLease(write.subnet, revision, due, write.value),
        rival=None,
        moved=moved,
    )


def _overlay(state: PolicyState, view: EtcdView, host: ThisHost) -> tuple[Overlay | None, str]:
    """Give the config to go by, and what is wrong: as long as it can be, the one in etcd."""
    old, new, subnet = state.overlay, view.config, state.subnet
    if new is None:
        return old, view.config_fault + (": the config stays as it was" if old else "")
    keeps = host.in_use and subnet is not None and not compatible(new, subnet)
    if old is not None and keeps and compatible(old, subnet or old.network):
        return old, (
            f"the network config in etcd does not allow our subnet {subnet} any more, but networks "
            "use it: the config stays as it was until they are removed"
        )
    return new, ""


def _value(overlay: Overlay, own: ThisHost) -> str:
    return lease_value(own.public_ip, overlay.backend, overlay.vni, own.mac)


def _keep(
    state: PolicyState, offer: AllowedSubnets, view: EtcdView, host: ThisHost, now: float
) -> Step | None:
    """Look after the lease we hold; None when it is ours no more."""
    held = state.held
    assert held is not None  # noqa: S101 - the caller has looked
    key = view.key(held.subnet)
    entry = view.entries.get(key)
    if entry is None or not offer.allows(held.subnet):
        return None
    value = _value(offer.overlay, host)
    if entry.revision != held.revision:
        record = view.record(key)
        if record is not None and entry.value not in (held.value.encode(), value.encode()):
            own, other = identity(host), identity(record)
            if other[0] != own[0] and other[1] != own[1]:
                return None
            if other[1] is not None and other != own:
                elder, until = state.elder or (None, now)
                if other == elder and now < until:
                    return _refused(replace(state, held=None, rival=other), record, host)
                # it took our lease for its own of old; we had it first, and it will yield
                state = replace(state, elder=(other, now + SOON_S))
        # our own write, of which the answer was lost, or somebody's repair
        held = replace(held, revision=entry.revision, due=min(held.due, now + SOON_S))
        state = replace(state, held=held)
    if now >= held.due or entry.value != value.encode():
        write = Write(key, held.subnet, entry.revision, value)
        return Step(state, "renewing", held.subnet, write)
    return Step(state, "moved" if state.moved else "held", held.subnet, _spare(key, view, host))


def _spare(key: str, view: EtcdView, host: ThisHost) -> Delete | None:
    """Name a second lease of ours: a write that etcd carried out long after we had given it up."""
    for record in view.of(host):
        if record.key != key and record.mac == host.mac:
            return Delete(record.key, record.revision)
    return None


def _refused(state: PolicyState, record: LeaseRecord, host: ThisHost) -> Step:
    if record.public_ip == host.public_ip:
        who, what = f"with the MAC {record.mac}", f"public IP {record.public_ip}"
        cure = "give one of the two another public IP"
    else:
        who, what = f"with the public IP {record.public_ip}", f"MAC {record.mac}"
        cure = "one of the two is a copy of the other: empty the state folder of the copy"
    problem = (
        f"another host, {who}, has the lease of {record.subnet} with our own {what}: {cure}; if "
        f"there is no other host, delete the key {record.key}"
    )
    return Step(state, "refused", problems=(problem,))


def _acquire(
    state: PolicyState, offer: AllowedSubnets, view: EtcdView, host: ThisHost, choose: Choose
) -> Step:
    """Find a subnet: a lease of ours, else the subnet we had, else a free one."""
    own, mine = identity(host), view.of(host, state.subnet)
    rivals = [r for r in mine if identity(r) == state.rival]
    if rivals:
        return _refused(state, rivals[0], host)
    only = state.subnet if host.in_use else None
    action = _reuse(mine, offer, state, only) or _drop(mine, offer, only)
    if isinstance(action, Delete):
        return Step(state, "acquiring", only, action)
    found = action or _choose(state.subnet, only, offer, view, choose)
    if isinstance(found, str):
        return Step(state, "lost" if only else "acquiring", problems=(found,))
    subnet, revision = found
    elder = next((identity(r) for r in mine if r.subnet == subnet), own)
    first = subnet == state.subnet and elder[1] != own[1]
    if elder[1] is not None and elder != own and not first:
        state = replace(state, elder=(elder, inf))  # we ourselves as we were, or another host
    write = Write(view.key(subnet), subnet, revision, _value(offer.overlay, host))
    kept = subnet if subnet == state.subnet else None
    return Step(state, "acquiring", kept, write)


def _reuse(
    mine: list[LeaseRecord], offer: AllowedSubnets, state: PolicyState, only: IPv4Network | None
) -> tuple[IPv4Network, int] | None:
    fit = [r for r in mine if r.subnet6 is None and offer.allows(r.subnet)]
    fit = [r for r in fit if only in (None, r.subnet)]
    fit.sort(key=lambda r: r.subnet != state.subnet)
    return (fit[0].subnet, fit[0].revision) if fit else None


def _drop(
    mine: list[LeaseRecord], offer: AllowedSubnets, only: IPv4Network | None
) -> Delete | None:
    """Name a lease of ours that does not fit, to go; one in use stays if its subnet fits not."""
    for record in mine:
        allowed = offer.allows(record.subnet)
        if not (allowed and record.subnet6 is None) and (record.subnet != only or allowed):
            return Delete(record.key, record.revision)
    return None


def _choose(
    before: IPv4Network | None,
    only: IPv4Network | None,
    offer: AllowedSubnets,
    view: EtcdView,
    choose: Choose,
) -> tuple[IPv4Network, int] | str:
    """Choose a subnet that nobody has, or say in a sentence why there is none."""
    overlay = offer.overlay
    taken = taken_subnets(view.entries.values(), overlay, view.known)
    if before is not None and offer.allows(before):
        if not any(before.overlaps(other) for other in taken):
            return before, 0
        owner = view.record(view.key(before))
        why = f"belongs to {owner.public_ip}" if owner else "is taken"
    else:
        why = f"is not one that the config of {overlay.network} allows"
    if only is not None:
        return (
            f"our subnet {only} {why}, but networks use it: remove them, and this host gets "
            f"another; or delete the key {view.key(only)} if nobody else uses it"
        )
    free = offer.free(taken)
    if not free:
        but = f" outside this host's own {', '.join(map(str, offer.lans))}" if offer.lans else ""
        return (
            f"no free subnet of /{overlay.subnet_len} from {overlay.subnet_min} to "
            f"{overlay.subnet_max}{but}: remove keys of hosts that are gone, or widen the network"
        )
    return choose(free), 0
