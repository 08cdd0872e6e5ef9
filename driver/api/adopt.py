"""Take over what Docker knows and the host does not show: `docker flannel adopt`.

The command line asks Docker and sends the answers, so no call of Docker's ever waits for Docker.
"""

from __future__ import annotations

from driver.api import body
from driver.api.body import Body, Reply
from driver.api.networks import create_network
from driver.api.options import network_options
from driver.core.reconciler import Reconciler
from driver.errors import Conflict, FlannelError
from driver.ipam import PoolRequest, take_pool
from driver.model.facts import Resident
from driver.model.objects import Bridge
from driver.model.records import HOST_END_PREFIX, Hold, replace, short
from driver.standin import SPACE


def adopt(core: Reconciler, req: Body, *, require_ipam: bool = False) -> Reply:
    """Take over networks and running containers as Docker describes them.

    `require_ipam`: see `create_network`.
    Request: Networks, as Docker's GET /networks lists them; Endpoints, {EndpointID, Address,
    MacAddress, Sandbox, Gateway} for each endpoint of a running container.
    Reply: Adopted, ids; Left, sentences.
    """
    before, left = core.state, list[str]()
    for network in req.parts("Networks"):
        try:
            _network(core, network, require_ipam=require_ipam)
        except FlannelError as error:
            left.append(f"network {short(network.object_id('Id'))}: {error}")
    core.takeover.described = {r.host_end: r for r in map(_resident, req.parts("Endpoints"))}
    core.attempt()
    left += core.history.last.errors if core.history.last else ()
    return {
        "Adopted": [
            *(f"network {short(i)}" for i in core.state.networks if i not in before.networks),
            *(f"endpoint {short(i)}" for i in core.state.endpoints if i not in before.endpoints),
        ],
        "Left": left,
    }


def _network(core: Reconciler, described: Body, *, require_ipam: bool) -> None:
    """Make a network's rows as if Docker created it now, or correct what the host did not show.

    Shape: {Id, Internal, Options, IPAM: {Driver, Config: [{Subnet, IPRange, Gateway,
           AuxiliaryAddresses}]}}.
    """
    network_id, options = described.object_id("Id"), described.part("Options")
    with core.edit() as edit:
        known = edit.state.networks.get(network_id)
        if known is not None:
            chosen = network_options(options, known.mtu)
            edit.put(replace(known, internal=described.flag("Internal"), **chosen))
            return
    ipam = described.part("IPAM")
    config = [c for c in ipam.parts("Config") if ":" not in c.text("Subnet")]
    if ipam.text("Driver") == body.NO_SPACE:
        config = []  # Docker has 0.0.0.0/0 there
    space = SPACE if ipam.text("Driver") == SPACE else "Docker's"
    blocks = [_block(block, space) for block in config[:1]]
    found = core.dataplane.observe((Bridge,))
    on_host = any(isinstance(t, Bridge) and t.owner == network_id for t in found)
    if on_host and space != SPACE:
        raise Conflict("its bridge exists, but nothing shows which block of the lease it had")
    if space == SPACE:
        _take_pool(core, config[0])
    flags = {body.INTERNAL: described.flag("Internal"), body.ENABLE_IPV4: bool(blocks)}
    made = {"NetworkID": network_id, "Options": {body.GENERIC: options.texts(), **flags}}
    create_network(core, Body({**made, "IPv4Data": blocks}), require_ipam=require_ipam)


def _block(config: Body, space: str) -> Reply:
    subnet, gateway = config.prefix("Subnet"), config.text("Gateway").partition("/")[0]
    length = subnet.prefixlen if subnet else ""
    return {"AddressSpace": space, "Pool": str(subnet), "Gateway": f"{gateway}/{length}"}


def _take_pool(core: Reconciler, config: Body) -> None:
    """Take the block that this plugin's IPAM chose, with its gateway and reserved addresses."""
    want = PoolRequest(config.prefix("Subnet"), config.prefix("IPRange"))
    with core.edit() as edit:
        pool = take_pool(edit.state, want, {}, "", edit.now)
        pool = replace(pool, automatic=False).owned("adopted", str(pool.cidr))
        edit.take(pool)
        aux = config.part("AuxiliaryAddresses")
        reserved = [aux.address(name) for name in aux.texts()]
        gateway = Body({"ip": config.text("Gateway").partition("/")[0]}).address("ip")
        edit.put(*(Hold(pool.id, ip, "aux", edit.now) for ip in reserved if ip))
        edit.put(*(Hold(pool.id, ip, "gateway", edit.now) for ip in [gateway] if ip))


def _resident(described: Body) -> Resident:
    ip, gateway = described.interface("Address"), described.address("Gateway")
    return Resident(
        f"{HOST_END_PREFIX}{short(described.object_id('EndpointID'))}",
        described.path("Sandbox"),
        "",
        described.mac("MacAddress"),
        (ip,) if ip else (),
        frozenset({gateway} if gateway else ()),
    )
