"""What to do about this host's lease, decided from what etcd has. No I/O, no clock.

flannel's rules, but every write is bound to the revision that was seen, another host's key is never
written, and a second host with our public IP is known by its MAC, one that is a copy of this one by
its public IP. Imports `flannel`, `lease_sight`, `peers`, `model`.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from math import inf

from driver.flannel.lease_types import (
    Choose,
    Delete,
    Held,
    Host,
    Memory,
    Sight,
    Step,
    Terms,
    Write,
    bearer,
)
from driver.flannel.peers import Own
from driver.flannel.records import (
    LeaseRecord,
    Offer,
    compatible,
    lease_value,
    taken_subnets,
)
from driver.model.records import Overlay

SOON_S = 60.0  # a lease that something else wrote with our own values is written again so soon


def step(memory: Memory, sight: Sight, host: Host, now: float, choose: Choose) -> Step:
    """Decide the next step."""
    overlay, problem = _overlay(memory, sight, host)
    problems = (problem,) if problem else ()
    if overlay is None:
        return Step(memory, "waiting", memory.subnet, problems=problems)
    memory = replace(memory, overlay=overlay)
    offer = Offer(overlay, () if host.in_use else host.own.ground.lans)
    found = _keep(memory, offer, sight, host, now) if memory.held else None
    if found is None:
        found = _acquire(replace(memory, held=None), offer, sight, host, choose)
    return replace(found, problems=problems + found.problems)


def written(memory: Memory, write: Write, revision: int, now: float, terms: Terms) -> Memory:
    """Remember a write that etcd has accepted."""
    moved = memory.subnet not in (None, write.subnet)
    due = now + terms.ttl_s - terms.margin_s
    return replace(
        memory,
        subnet=write.subnet,
        held=Held(write.subnet, revision, due, write.value),
        rival=None,
        moved=moved,
    )


def _overlay(memory: Memory, sight: Sight, host: Host) -> tuple[Overlay | None, str]:
    """Give the config to go by, and what is wrong: as long as it can be, the one in etcd."""
    old, new, subnet = memory.overlay, sight.config, memory.subnet
    if new is None:
        return old, sight.config_fault + (": the config stays as it was" if old else "")
    keeps = host.in_use and subnet is not None and not compatible(new, subnet)
    if old is not None and keeps and compatible(old, subnet or old.network):
        return old, (
            f"the network config in etcd does not allow our subnet {subnet} any more, but networks "
            "use it: the config stays as it was until they are removed"
        )
    return new, ""


def _value(overlay: Overlay, own: Own) -> str:
    return lease_value(own.public_ip, overlay.backend, overlay.vni, own.mac)


def _keep(memory: Memory, offer: Offer, sight: Sight, host: Host, now: float) -> Step | None:
    """Look after the lease we hold; None when it is ours no more."""
    held = memory.held
    assert held is not None  # noqa: S101 - the caller has looked
    key = sight.key(held.subnet)
    entry = sight.entries.get(key)
    if entry is None or not offer.allows(held.subnet):
        return None
    value = _value(offer.overlay, host.own)
    if entry.revision != held.revision:
        record = sight.record(key)
        if record is not None and entry.value not in (held.value.encode(), value.encode()):
            own, other = bearer(host.own), bearer(record)
            if other[0] != own[0] and other[1] != own[1]:
                return None
            if other[1] is not None and other != own:
                elder, until = memory.elder or (None, now)
                if other == elder and now < until:
                    return _refused(replace(memory, held=None, rival=other), record, host)
                # it took our lease for its own of old; we had it first, and it will yield
                memory = replace(memory, elder=(other, now + SOON_S))
        # our own write, of which the answer was lost, or somebody's repair
        held = replace(held, revision=entry.revision, due=min(held.due, now + SOON_S))
        memory = replace(memory, held=held)
    if now >= held.due or entry.value != value.encode():
        write = Write(key, held.subnet, entry.revision, value)
        return Step(memory, "renewing", held.subnet, write)
    return Step(memory, "moved" if memory.moved else "held", held.subnet, _spare(key, sight, host))


def _spare(key: str, sight: Sight, host: Host) -> Delete | None:
    """Name a second lease of ours: a write that etcd carried out long after we had given it up."""
    for record in sight.of(host.own):
        if record.key != key and record.mac == host.own.mac:
            return Delete(record.key, record.revision)
    return None


def _refused(memory: Memory, record: LeaseRecord, host: Host) -> Step:
    if record.public_ip == host.own.public_ip:
        who, what = f"with the MAC {record.mac}", f"public IP {record.public_ip}"
        cure = "give one of the two another public IP"
    else:
        who, what = f"with the public IP {record.public_ip}", f"MAC {record.mac}"
        cure = "one of the two is a copy of the other: empty the state folder of the copy"
    problem = (
        f"another host, {who}, has the lease of {record.subnet} with our own {what}: {cure}; if "
        f"there is no other host, delete the key {record.key}"
    )
    return Step(memory, "refused", problems=(problem,))


def _acquire(memory: Memory, offer: Offer, sight: Sight, host: Host, choose: Choose) -> Step:
    """Find a subnet: a lease of ours, else the subnet we had, else a free one."""
    own, mine = bearer(host.own), sight.of(host.own, memory.subnet)
    rivals = [r for r in mine if bearer(r) == memory.rival]
    if rivals:
        return _refused(memory, rivals[0], host)
    only = memory.subnet if host.in_use else None
    action = _reuse(mine, offer, memory, only) or _drop(mine, offer, only)
    if isinstance(action, Delete):
        return Step(memory, "acquiring", only, action)
    found = action or _choose(memory.subnet, only, offer, sight, choose)
    if isinstance(found, str):
        return Step(memory, "lost" if only else "acquiring", problems=(found,))
    subnet, revision = found
    elder = next((bearer(r) for r in mine if r.subnet == subnet), own)
    first = subnet == memory.subnet and elder[1] != own[1]
    if elder[1] is not None and elder != own and not first:
        memory = replace(memory, elder=(elder, inf))  # we ourselves as we were, or another host
    write = Write(sight.key(subnet), subnet, revision, _value(offer.overlay, host.own))
    kept = subnet if subnet == memory.subnet else None
    return Step(memory, "acquiring", kept, write)


def _reuse(
    mine: list[LeaseRecord], offer: Offer, memory: Memory, only: IPv4Network | None
) -> tuple[IPv4Network, int] | None:
    fit = [r for r in mine if r.subnet6 is None and offer.allows(r.subnet)]
    fit = [r for r in fit if only in (None, r.subnet)]
    fit.sort(key=lambda r: r.subnet != memory.subnet)
    return (fit[0].subnet, fit[0].revision) if fit else None


def _drop(mine: list[LeaseRecord], offer: Offer, only: IPv4Network | None) -> Delete | None:
    """Name a lease of ours that does not fit, to go; one in use stays if its subnet fits not."""
    for record in mine:
        allowed = offer.allows(record.subnet)
        if not (allowed and record.subnet6 is None) and (record.subnet != only or allowed):
            return Delete(record.key, record.revision)
    return None


def _choose(
    before: IPv4Network | None,
    only: IPv4Network | None,
    offer: Offer,
    sight: Sight,
    choose: Choose,
) -> tuple[IPv4Network, int] | str:
    """Choose a subnet that nobody has, or say in a sentence why there is none."""
    overlay = offer.overlay
    taken = taken_subnets(sight.entries.values(), overlay, sight.known)
    if before is not None and offer.allows(before):
        if not any(before.overlaps(other) for other in taken):
            return before, 0
        owner = sight.record(sight.key(before))
        why = f"belongs to {owner.public_ip}" if owner else "is taken"
    else:
        why = f"is not one that the config of {overlay.network} allows"
    if only is not None:
        return (
            f"our subnet {only} {why}, but networks use it: remove them, and this host gets "
            f"another; or delete the key {sight.key(only)} if nobody else uses it"
        )
    free = offer.free(taken)
    if not free:
        but = f" outside this host's own {', '.join(map(str, offer.lans))}" if offer.lans else ""
        return (
            f"no free subnet of /{overlay.subnet_len} from {overlay.subnet_min} to "
            f"{overlay.subnet_max}{but}: remove keys of hosts that are gone, or widen the network"
        )
    return choose(free), 0
