"""One change of the state: rows put and dropped, with the rows that depend on them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import TypeVar

from driver.core.addresses import Wish, take_address
from driver.errors import UnknownObject
from driver.model.interfaces import LeaseStatus
from driver.model.records import (
    Claim,
    Endpoint,
    Freed,
    Hold,
    Lease,
    Network,
    Overlay,
    Peer,
    Pool,
    Record,
    State,
    Vtep,
    hold_id,
    pool_id,
    replace,
    short,
)

FIELDS: dict[type[Record], str] = {
    Pool: "pools",
    Freed: "freed",
    Hold: "holds",
    Claim: "claims",
    Network: "networks",
    Endpoint: "endpoints",
}

EMPTY = State()

Row = TypeVar("Row", Pool, Network, Endpoint)


class Edit:
    """The new state (`state`), and the rows that change on the way there.

    Units: `now` is Unix time in seconds. `found`: the state as the previous process or the previous
    dockerd left it.
    """

    def __init__(self, state: State, now: float, found: State = EMPTY) -> None:
        self.state = self._before = state
        self.now, self._found = now, found
        self._puts: dict[tuple[str, str], Record] = {}
        self._drops: dict[tuple[str, str], Record] = {}

    def put(self, *records: Record) -> None:
        """Add or replace rows."""
        for record in records:
            self._set(record)
            self._drops.pop((record.kind, record.id), None)
            self._puts[record.kind, record.id] = record

    def drop(self, record: Record) -> None:
        """Remove a row and all that depend on it; a missing row is no error."""
        if isinstance(record, Network):
            for endpoint in self.state.endpoints_of(record.id):
                self.drop(endpoint)
            pool = self.state.pools.get(record.pool)
            if pool is not None and pool.owner != "ipam":
                self.drop(pool)
        self._remember(record)
        self._set(record, gone=True)
        self._puts.pop((record.kind, record.id), None)
        self._drops[record.kind, record.id] = record
        if isinstance(record, Endpoint):
            hold = self._hold_of(record)
            if hold is not None and hold.released:
                self.drop(hold)
        elif isinstance(record, Pool):
            for row in self._of_pool(record.id):
                self.drop(row)
            self.put(Freed(record.cidr, self.now))

    def take(self, pool: Pool, hold: Hold | None = None) -> None:
        """Put a pool and a hold in it; its block no longer counts as freed."""
        for freed in [f for f in self.state.freed.values() if f.cidr.overlaps(pool.cidr)]:
            self.drop(freed)
        self.put(pool, *([hold] if hold else []))

    def take_address(self, pool: Pool, wish: Wish) -> Hold:
        """Choose an address for a container and put its rows. Errors: FlannelError."""
        taken = take_address(self.state, pool, wish, self.now, self._broken_off())
        network = self.state.network_of(pool.id)
        for endpoint in self.state.endpoints_of(network.id) if network else []:
            if endpoint.ip.ip == taken.hold.ip:
                self.drop(endpoint)  # of a call that broke off
        self.put(taken.pool, taken.hold, *([taken.claim] if taken.claim else []))
        return taken.hold

    def release(self, pool: Pool, ip: IPv4Address) -> None:
        """Release an address.

        Docker always deletes the endpoint first, unless that call was lost. An endpoint that was
        never joined is dropped with its address. A joined one keeps the address until it is deleted
        itself: a late message must not free what a running container uses.
        """
        hold = self.state.holds.get(hold_id(pool.id, ip))
        if hold is None:
            return
        network = self.state.network_of(pool.id)
        endpoints = self.state.endpoints_of(network.id) if network else []
        user = next((e for e in endpoints if e.ip.ip == ip), None)
        if user is not None and user.sandbox is not None:
            self.put(replace(hold, released=True))
            return
        self.drop(hold)
        if user is not None:
            self.drop(user)

    def rename(self, pool: Pool, new: Pool) -> None:
        """Replace a pool by one with another id, in its network and holds, too."""
        network = self.state.network_of(pool.id)
        for hold in [h for h in self.state.holds.values() if h.pool == pool.id]:
            self.drop(hold)
            self.put(replace(hold, pool=new.id))
        self._set(pool, gone=True)
        self._puts.pop((pool.kind, pool.id), None)
        self._drops[pool.kind, pool.id] = pool
        self.put(new, *([replace(network, pool=new.id)] if network else []))

    def become(self, new: LeaseStatus) -> None:
        """Replace lease, overlay, VTEP and peers by what the lease's source reports."""
        old = self.state
        for was, now in ((old.lease, new.lease), (old.overlay, new.overlay), (old.vtep, new.vtep)):
            if now is None and was is not None:
                self.drop(was)
            elif now is not None and now != was:
                self.put(now)
        # thousands of peers may come at once: copy the rows once, not for each
        before = frozenset(old.peers.values())
        gone, come = before - new.peers, new.peers - before
        if gone or come:
            away = {peer.id for peer in gone}
            rows = {i: peer for i, peer in old.peers.items() if i not in away}
            rows |= {peer.id: peer for peer in come}
            self.state = replace(self.state, peers=rows)
            self._drops |= {(p.kind, p.id): p for p in gone if p.id not in rows}
            self._puts |= {(p.kind, p.id): p for p in come}

    def network(self, network_id: str) -> Network:
        """Find a network. Errors: UnknownObject."""
        return _find(self.state.networks, network_id, "network")

    def endpoint(self, endpoint_id: str) -> Endpoint:
        """Find an endpoint. Errors: UnknownObject."""
        return _find(self.state.endpoints, endpoint_id, "endpoint")

    def pool(self, row_id: str) -> Pool:
        """Find a pool by the id that Docker has of it; our IPAM assigns its addresses.

        Errors: UnknownObject.
        """
        self._name_adopted(row_id)
        ours = {i: pool for i, pool in self.state.pools.items() if pool.owner == "ipam"}
        return _find(ours, row_id, "pool")

    def rows(self) -> tuple[list[Record], list[Record]]:
        """Return the rows to write and the rows to remove."""
        return list(self._puts.values()), list(self._drops.values())

    def adds(self) -> bool:
        """Whether a network or an endpoint is new."""
        new, old = self.state, self._before
        return not (
            new.networks.keys() <= old.networks.keys()
            and new.endpoints.keys() <= old.endpoints.keys()
        )

    def touched(self, kind: type[Network] | type[Endpoint] | type[Peer]) -> set[str]:
        """Return the ids of the networks, endpoints or peers that change.

        A peer changes with those of the same host, as they share one MAC's entry; a network with
        its endpoints, as its guard depends on their published ports.
        """
        ids = {i for k, i in [*self._puts, *self._drops] if k == kind.kind}
        if kind is Network:
            ends, both = self.touched(Endpoint), (self._before.endpoints, self.state.endpoints)
            ids |= {rows[i].network for rows in both for i in ends if i in rows}
        if kind is not Peer or not ids:
            return ids
        old, new = self._before.peers, self.state.peers
        changed = [rows[i] for rows in (old, new) for i in ids if i in rows]
        hosts = {p.public_ip for p in changed} | {p.mac for p in changed if p.mac}
        return ids | {i for i, p in new.items() if p.mac in hosts or p.public_ip in hosts}

    def shared(self) -> bool:
        """Whether anything changes that all networks share."""
        return self.moved() or bool(self._before.networks) != bool(self.state.networks)

    def moved(self) -> bool:
        """Whether this host's own place in the overlay changes."""
        old, new = self._before, self.state
        return (old.lease, old.overlay, old.vtep) != (new.lease, new.overlay, new.vtep)

    def durable(self) -> bool:
        """Whether the change has to survive a power cut.

        Containers do not survive it, networks do. So must the record that an address was requested
        with `--ip`, so that its container gets it again.
        """
        old, new = self._before, self.state
        return (
            self.moved()
            or any(isinstance(r, Claim) and self._newly_named(r) for r in self._puts.values())
            or old.pools.keys() != new.pools.keys()
            or old.networks.keys() != new.networks.keys()
        )

    def _name_adopted(self, wanted: str) -> None:
        """Change an adopted block's id to the one Docker uses, which begins with the block."""
        pool = self.state.pools.get(pool_id("adopted", wanted.rpartition("/")[0]))
        if pool is not None and wanted not in self.state.pools:
            self.rename(pool, replace(pool, id=wanted, owner="ipam"))

    def _broken_off(self) -> frozenset[str]:
        """Return the ids of the holds of calls that broke off.

        They are older than this process or this dockerd, and no endpoint was made or joined there
        since. Only our own networks count: the endpoints of another driver's are unknown.
        """
        networks = {network.pool for network in self.state.networks.values()}
        alive = [e for e in self.state.endpoints.values() if not self._is_unfinished(e)]
        used = {hold.id for e in alive if (hold := self._hold_of(e))}
        return frozenset(
            hold.id
            for hold in self._found.holds.values()
            if hold.why == "endpoint"
            and hold.pool in networks
            and hold.id not in used
            and self.state.holds.get(hold.id) == hold
        )

    def _is_unfinished(self, endpoint: Endpoint) -> bool:
        return endpoint.sandbox is None and self._found.endpoints.get(endpoint.id) == endpoint

    def _newly_named(self, claim: Claim) -> bool:
        before = self._before.claims.get(claim.id)
        return claim.named and not (before and before.named)

    def _remember(self, record: Record) -> None:
        """Note in the claim when its address was released."""
        claim = self.state.claims.get(record.id) if isinstance(record, Hold) else None
        if claim is not None and record.id in self.state.holds:
            self.put(replace(claim, freed=self.now))

    def _of_pool(self, pool: str) -> list[Hold | Claim]:
        rows: list[Hold | Claim] = [*self.state.holds.values(), *self.state.claims.values()]
        return [row for row in rows if row.pool == pool]

    def _hold_of(self, endpoint: Endpoint) -> Hold | None:
        network = self.state.networks.get(endpoint.network)
        return self.state.holds.get(hold_id(network.pool, endpoint.ip.ip)) if network else None

    def _set(self, record: Record, *, gone: bool = False) -> None:
        if isinstance(record, Lease | Overlay | Vtep):
            self.state = replace(self.state, **{record.kind: None if gone else record})
            return
        field = FIELDS[type(record)]
        rows = {**getattr(self.state, field), record.id: record}
        if gone:
            del rows[record.id]
        self.state = replace(self.state, **{field: rows})


def _find(rows: Mapping[str, Row], row_id: str, what: str) -> Row:
    try:
        return rows[row_id]
    except KeyError:
        shown = row_id if what == "pool" else short(row_id)
        raise UnknownObject(
            f"{what} {shown} is not known to this plugin; `docker flannel adopt` takes over what "
            "Docker has"
        ) from None
