"""Docker's IPAM calls: decode, edit, encode. All can be repeated.

Source: libnetwork's remote IPAM protocol.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from ipaddress import IPv4Interface

from driver.api import body
from driver.api.body import Body, Reply
from driver.api.options import ipam_prefix
from driver.core.addresses import Wish
from driver.core.reconciler import Reconciler
from driver.errors import BadRequest, UnknownObject
from driver.ipam import PoolRequest, take_pool
from driver.standin import SPACE

LONGEST_NAME = 255  # of a container, as it is remembered


def request_pool(core: Reconciler, req: Body) -> Reply:
    """Choose a new network's block of the lease.

    Request: AddressSpace, Pool, SubPool, Options, V6.  Reply: PoolID, Pool, Data.
    """
    if req.flag("V6"):
        raise BadRequest("IPv6 was asked for, but this host's flannel lease has no IPv6 subnet")
    space = req.text("AddressSpace", needed=False)
    if space not in ("", SPACE):
        raise BadRequest(f"AddressSpace {space!r} is not {SPACE!r}")
    want = PoolRequest(req.prefix("Pool"), req.prefix("SubPool"), ipam_prefix(req.part("Options")))
    if want.cidr is None and want.sub is not None:
        raise BadRequest(f"--ip-range {want.sub} needs a --subnet")
    used = core.used_prefixes()
    with core.edit() as edit:
        pool = take_pool(edit.state, want, used, secrets.token_hex(4), edit.now)
        edit.take(pool)
    return {"PoolID": pool.id, "Pool": str(pool.cidr), "Data": {}}


def release_pool(core: Reconciler, req: Body) -> Reply:
    """Release a block with all addresses in it.

    Request: PoolID.  Reply: empty.
    """
    pool_id = req.pool_id()
    with core.edit() as edit, suppress(UnknownObject):
        edit.drop(edit.pool(pool_id))
    return {}


def request_address(core: Reconciler, req: Body) -> Reply:
    """Choose an address of a pool.

    Request: PoolID, Address, Options, which name the container since Docker 29.
    Reply: Address with the pool's length, Data.
    """
    pool_id, wanted, options = req.pool_id(), req.address("Address"), req.part("Options")
    gateway = options.text(body.ADDRESS_TYPE, needed=False) == body.GATEWAY_TYPE
    owner = options.text(body.ENDPOINT_NAME, needed=False)[:LONGEST_NAME]
    wish = Wish(wanted, owner, gateway)
    place = core.retry(lambda: _take_address(core, pool_id, wish))
    return {"Address": str(place), "Data": {}}


def _take_address(core: Reconciler, pool_id: str, wish: Wish) -> IPv4Interface:
    with core.edit() as edit:
        pool = edit.pool(pool_id)
        if not wish.gateway:
            core.takeover.check_seen(edit.state.network_of(pool.id))
        hold = edit.take_address(pool, wish)
    return IPv4Interface((hold.ip, pool.cidr.prefixlen))


def release_address(core: Reconciler, req: Body) -> Reply:
    """Release an address. The pool's id is empty for a network without IPv4.

    Request: PoolID, Address.  Reply: empty.
    """
    pool_id = req.text("PoolID", needed=False)
    ip = req.address("Address")
    with core.edit() as edit, suppress(UnknownObject):
        if ip is not None:
            edit.release(edit.pool(pool_id), ip)
    return {}
