"""What to do about this host's lease, decided from what etcd holds. Pure, without a clock.

The rules are flannel's, but each write is a compare-and-swap on the revision seen, and another
host's key is never written. Another host with our public IP is told by its MAC, and a copy of this
host, which has our MAC, by its public IP.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from math import inf

from driver.flannel.allocation import AllowedSubnets, compatible, taken_subnets
from driver.flannel.lease_types import (
    REMOVE,
    Choose,
    Delete,
    EtcdView,
    HeldLease,
    LeaseTimes,
    PolicyState,
    Step,
    ThisHost,
    Write,
)
from driver.flannel.records import LeaseRecord, lease_value
from driver.model.records import Overlay

SOON_S = 60.0  # our lease is renewed so soon when somebody else has written it with our values


def step(state: PolicyState, view: EtcdView, host: ThisHost, now: float, choose: Choose) -> Step:
    """Return what to do next; `now` in seconds."""
    overlay, problem = _overlay(state, view, host)
    problems = (problem,) if problem else ()
    if overlay is None:
        return Step(state, "waiting", state.subnet, problems=problems)
    state = replace(state, overlay=overlay)
    allowed = AllowedSubnets(overlay, () if host.in_use else host.local.lans)
    found = _keep(state, allowed, view, host, now) if state.held else None
    if found is None:
        found = _acquire(replace(state, held=None), allowed, view, host, choose)
    return replace(found, problems=problems + found.problems)


def written(
    state: PolicyState, write: Write, revision: int, now: float, times: LeaseTimes
) -> PolicyState:
    """Return the state after etcd has accepted a write at `revision`."""
    due = now + times.ttl_s - times.margin_s
    return replace(
        state,
        subnet=write.subnet,
        held=HeldLease(write.subnet, revision, due, write.value),
        rival=None,
        moved=state.subnet not in (None, write.subnet),
    )


def _overlay(state: PolicyState, view: EtcdView, host: ThisHost) -> tuple[Overlay | None, str]:
    """Return the config to follow, etcd's whenever possible, and what is wrong with etcd's."""
    old, new, subnet = state.overlay, view.config, state.subnet
    if new is None:
        return old, view.config_fault + (": the config stays as it was" if old else "")
    outside = host.in_use and subnet is not None and not compatible(new, subnet)
    if old is not None and outside and compatible(old, subnet or old.network):
        return old, (
            f"the network config in etcd does not allow our subnet {subnet}, but these use it: "
            f"{host.in_use}; the config stays as it was until they are removed ({REMOVE})"
        )
    return new, ""


def _value(overlay: Overlay, host: ThisHost) -> str:
    return lease_value(host.public_ip, overlay.backend, overlay.vni, host.mac)


# --- a lease we hold ---


def _keep(
    state: PolicyState, allowed: AllowedSubnets, view: EtcdView, host: ThisHost, now: float
) -> Step | None:
    """Renew or repair the lease we hold, if need be; None if it is no longer ours."""
    held = state.held
    assert held is not None  # noqa: S101 - the caller has checked
    key = view.key(held.subnet)
    entry = view.entries.get(key)
    if entry is None or held.subnet not in allowed:
        return None
    value = _value(allowed.overlay, host)
    if entry.revision != held.revision:
        record = view.record(key)
        if record is not None and entry.value not in (held.value.encode(), value.encode()):
            if record.public_ip != host.public_ip and record.mac != host.mac:
                return None
            other = record.identity
            if other[1] is not None and other != host.identity:
                elder, until = state.elder or (None, now)
                if other == elder and now < until:
                    return _refused(replace(state, held=None, rival=other), record, host)
                # it took our lease for its own earlier one; we had it first, so it will yield
                state = replace(state, elder=(other, now + SOON_S))
        # a write of ours whose answer was lost, or somebody's repair
        held = replace(held, revision=entry.revision, due=min(held.due, now + SOON_S))
        state = replace(state, held=held)
    if now >= held.due or entry.value != value.encode():
        write = Write(key, held.subnet, entry.revision, value)
        return Step(state, "renewing", held.subnet, write)
    return Step(state, "moved" if state.moved else "held", held.subnet, _spare(key, view, host))


def _spare(key: str, view: EtcdView, host: ThisHost) -> Delete | None:
    """Return how to drop a second lease of ours: etcd made that write after we had given it up."""
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


# --- a lease to get ---


def _acquire(
    state: PolicyState, allowed: AllowedSubnets, view: EtcdView, host: ThisHost, choose: Choose
) -> Step:
    """Take a lease of ours that is in etcd, else our last subnet, else a free one."""
    mine = view.of(host, state.subnet)
    rivals = [r for r in mine if r.identity == state.rival]
    if rivals:
        return _refused(state, rivals[0], host)
    only = state.subnet if host.in_use else None
    action = _reuse(mine, allowed, state, only) or _drop(mine, allowed, only)
    if isinstance(action, Delete):
        return Step(state, "acquiring", only, action)
    found = action or _choose(state.subnet, host.in_use, allowed, view, choose)
    if isinstance(found, str):
        return Step(state, "lost" if only else "acquiring", problems=(found,))
    subnet, revision = found
    elder = next((r.identity for r in mine if r.subnet == subnet), host.identity)
    first = subnet == state.subnet and elder[1] != host.mac
    if elder[1] is not None and elder != host.identity and not first:
        state = replace(state, elder=(elder, inf))  # this host as it was, or another one
    write = Write(view.key(subnet), subnet, revision, _value(allowed.overlay, host))
    kept = subnet if subnet == state.subnet else None
    return Step(state, "acquiring", kept, write)


def _reuse(
    mine: list[LeaseRecord], allowed: AllowedSubnets, state: PolicyState, only: IPv4Network | None
) -> tuple[IPv4Network, int] | None:
    """Return subnet and revision of a lease to take over: that of our last subnet comes first."""
    fit = [r for r in mine if r.subnet6 is None and r.subnet in allowed]
    fit = [r for r in fit if only in (None, r.subnet)]
    fit.sort(key=lambda r: r.subnet != state.subnet)
    return (fit[0].subnet, fit[0].revision) if fit else None


def _drop(
    mine: list[LeaseRecord], allowed: AllowedSubnets, only: IPv4Network | None
) -> Delete | None:
    """Return how to drop a lease of ours that is not allowed, unless networks use its subnet."""
    for record in mine:
        fits = record.subnet in allowed
        if not (fits and record.subnet6 is None) and (record.subnet != only or fits):
            return Delete(record.key, record.revision)
    return None


def _choose(
    before: IPv4Network | None,
    in_use: str,
    allowed: AllowedSubnets,
    view: EtcdView,
    choose: Choose,
) -> tuple[IPv4Network, int] | str:
    """Return a subnet that nobody has, and revision 0; or a sentence that says why there is none.

    `before`: our last subnet, which comes first, and alone will do if it is `in_use`.
    """
    overlay = allowed.overlay
    taken = taken_subnets(view.entries.values(), overlay, view.cache)
    if before is not None and before in allowed:
        if not any(before.overlaps(other) for other in taken):
            return before, 0
        owner = view.record(view.key(before))
        why = f"belongs to {owner.public_ip}" if owner else "is taken"
    else:
        why = f"is not one that the config of {overlay.network} allows"
    if before is not None and in_use:
        return (
            f"our subnet {before} {why}, but these use it: {in_use}; remove them ({REMOVE}), and "
            f"this host gets another; or delete the key {view.key(before)} if nobody else uses it"
        )
    free = allowed.free(taken)
    if not free:
        but = f" outside this host's own {', '.join(map(str, allowed.lans))}" * bool(allowed.lans)
        return (
            f"no free subnet of /{overlay.subnet_len} from {overlay.subnet_min} to "
            f"{overlay.subnet_max}{but}: remove keys of hosts that are gone, or widen the network"
        )
    return choose(free), 0
