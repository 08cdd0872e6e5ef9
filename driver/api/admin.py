"""The administrator's call to forget a network or block."""

from __future__ import annotations

from driver.api.body import Body, Reply
from driver.core.edit import Edit
from driver.core.reconciler import Reconciler
from driver.errors import Conflict, UnknownObject
from driver.model.records import Network, Pool

SHORTEST = 4  # characters of a network's id


def forget(core: Reconciler, req: Body) -> Reply:
    """Forget a network or a block that Docker removed while the plugin was not running.

    Request: What, the beginning of a network's id or a block.  Reply: Forgotten, a sentence.
    """
    what = req.text("What")
    with core.edit() as edit:
        found = _found(edit, what)
        if isinstance(found, Network):
            if left := len(edit.state.endpoints_of(found.id)):
                raise Conflict(f"network {what} has {left} containers; disconnect them first")
            give_up(edit, found)
        else:
            edit.drop(found)
    block = found.gateway.network if isinstance(found, Network) else found.cidr
    return {"Forgotten": f"{what}, block {block}"}


def give_up(edit: Edit, network: Network) -> None:
    """Drop a network without containers, with its block."""
    edit.drop(network)
    if network.pool in edit.state.pools:
        edit.drop(edit.state.pools[network.pool])


def _found(edit: Edit, what: str) -> Network | Pool:
    if len(what) >= SHORTEST:
        networks = [n for n in edit.state.networks.values() if n.id.startswith(what)]
        if len(networks) == 1:
            return networks[0]
    pools = [p for p in edit.state.pools.values() if str(p.cidr) == what]
    if len(pools) == 1:
        return edit.state.network_of(pools[0].id) or pools[0]
    raise UnknownObject(
        f"{what[:80]!r} is neither a block nor the first {SHORTEST} or more characters of exactly "
        "one network's id; `docker-flannel status` lists both"
    )
