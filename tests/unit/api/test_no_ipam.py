"""Networks without any IPAM: the driver gives the addresses itself."""

from __future__ import annotations

from typing import Any

import pytest

from driver.api.body import ENABLE_IPV4, GENERIC, INTERNAL
from driver.model.objects import Veth
from tests.unit.docker import port, portmap
from tests.unit.plugin import Setting
from tests.unit.short import (
    IPV4_OFF,
    NET,
    NET2,
    NULL,
    attach,
    create,
    detach,
    end_id,
    join,
    restart,
)


@pytest.mark.parametrize("body", [IPV4_OFF, NULL])
def test_the_driver_gives_the_addresses_where_no_ipam_does(
    on: Setting, body: dict[str, Any]
) -> None:
    for _ in range(2):
        create(on, body)
        on.bench.assert_agrees()
    one, two = end_id(1), end_id(2)
    for _ in range(2):
        assert attach(on, one) == {"Address": "10.2.0.2/27", "MacAddress": "02:42:0a:02:00:02"}
    assert attach(on, two, mac="02:00:00:00:00:99") == {"Address": "10.2.0.3/27"}
    for end in (one, two):
        assert join(on, end)["Gateway"] == "10.2.0.1"
        on.bench.assert_agrees()
    ids = {"NetworkID": NET, "EndpointID": one, "Options": portmap(port(80, 8080))}
    on.plugin.call("NetworkDriver.ProgramExternalConnectivity", ids)
    assert on.ports_of(one) == ["0.0.0.0:8080->80/tcp"]
    restart(on)
    detach(on, one)
    on.plugin.call("IpamDriver.ReleaseAddress", {"PoolID": "", "Address": "10.2.0.2"})
    assert attach(on, end_id(3))["Address"] == "10.2.0.2/27", "what it had before"
    assert attach(on, end_id(4))["Address"] == "10.2.0.4/27"
    detach(on, two)
    detach(on, end_id(4))
    again = attach(on, end_id(5), mac="02:00:00:00:00:99")
    assert again == {"Address": "10.2.0.3/27"}, "it is known by its MAC"
    assert {str(h.ip) for h in on.bench.state.holds.values()} == {
        "10.2.0.1", "10.2.0.2", "10.2.0.3",
    }  # fmt: skip
    on.plugin.call("NetworkDriver.DeleteNetwork", {"NetworkID": NET})
    on.bench.assert_clean()


def test_the_size_of_such_a_network_is_a_driver_option(on: Setting) -> None:
    create(on, IPV4_OFF, options={GENERIC: {"flannel.size": "/29", ENABLE_IPV4: "false"}})
    create(on, NULL, NET2)
    blocks = {n.id: str(n.gateway.network) for n in on.bench.state.networks.values()}
    assert blocks == {NET: "10.2.0.0/29", NET2: "10.2.0.32/27"}
    options = {ENABLE_IPV4: False, GENERIC: {"flannel.size": "/31"}}
    full = {"NetworkID": "f" * 64, "IPv4Data": [], "Options": options}
    status, said = on.plugin.refusal("NetworkDriver.CreateNetwork", full)
    assert (status, said) == (400, "flannel.size /31 is not between /24 and /30")


def test_an_internal_network_of_that_kind_gives_no_gateway(on: Setting) -> None:
    create(on, IPV4_OFF, options={INTERNAL: True})
    assert attach(on, end_id(1))["Address"] == "10.2.0.2/27"
    assert "Gateway" not in join(on, end_id(1))


def test_such_a_network_is_refused_when_it_is_full_and_takes_again_what_is_freed(
    on: Setting,
) -> None:
    create(on, IPV4_OFF, options={GENERIC: {"flannel.size": "/30"}})
    attach(on, end_id(1))
    join(on, end_id(1))
    body = {"NetworkID": NET, "EndpointID": end_id(2), "Interface": {}}
    status, said = on.plugin.refusal("NetworkDriver.CreateEndpoint", body)
    assert (status, said.split(":")[0]) == (409, "no free address in 10.2.0.0/30")
    on.bench.kernel.lose(Veth)  # the container died unheard
    assert attach(on, end_id(2))["Address"] == "10.2.0.2/30"


def test_an_endpoint_that_was_never_joined_gives_its_address_back(on: Setting) -> None:
    create(on, IPV4_OFF)
    attach(on, end_id(1))
    on.bench.passes(4)
    assert not on.bench.state.endpoints
    assert [h.why for h in on.bench.state.holds.values()] == ["gateway"]
    on.bench.assert_agrees()


@pytest.mark.parametrize("body", [IPV4_OFF, NULL])
def test_calls_of_an_ipam_driver_do_not_reach_such_a_network(
    on: Setting, body: dict[str, Any]
) -> None:
    create(on, body)
    attach(on, end_id(1))
    before, ids = on.bench.state, {"PoolID": f"network/{NET}", "Address": "10.2.0.2"}
    assert on.plugin.call("IpamDriver.ReleaseAddress", ids) == {}
    assert on.plugin.call("IpamDriver.ReleasePool", ids) == {}
    status, message = on.plugin.refusal("IpamDriver.RequestAddress", {**ids, "Address": ""})
    assert (status, "is not known to this plugin" in message) == (400, True)
    assert on.bench.state == before
