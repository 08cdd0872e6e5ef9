"""What each call does, over HTTP."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from driver.model.firewall import (
    BridgePair,
    ClosedPrefix,
    FirewallEntry,
    LeasePrefix,
    OverlayPrefix,
    SourcePrefix,
    Uplink,
)
from driver.model.objects import Bridge
from driver.model.records import replace
from driver.standin import STATIC
from tests.unit.bench import Bench
from tests.unit.docker import GATEWAY, Net, Refused, port, portmap
from tests.unit.fakes import FACTS
from tests.unit.plugin import Setting


def test_the_static_replies_need_no_state(on: Setting) -> None:
    for method, reply in STATIC.items():
        for body in (None, b"", {"NetworkID": "x", "EndpointID": "y"}, b"nonsense"):
            assert on.plugin.ask(method, body) == (200, reply)
    assert STATIC["Plugin.Activate"] == {"Implements": ["NetworkDriver", "IpamDriver"]}
    spaces = STATIC["IpamDriver.GetDefaultAddressSpaces"]
    assert len(set(spaces.values())) == 1, "Docker 27 and later skip their overlap loop by this"


def test_only_unknown_paths_are_404(on: Setting) -> None:
    for method in ("NetworkDriver.Nonsense", "VolumeDriver.Create", "nonsense"):
        status, reply = on.plugin.ask(method, {})
        assert (status, set(reply)) == (404, {"Err", "Error"})
    assert on.plugin.client.get("/NetworkDriver.Join").status_code == 405


def test_swarm_is_refused(on: Setting) -> None:
    for method in ("NetworkDriver.AllocateNetwork", "NetworkDriver.FreeNetwork"):
        status, message = on.plugin.refusal(method, {"NetworkID": "a" * 64})
        assert (status, message.split(";")[0]) == (
            400,
            "swarm-scoped networks are not supported",
        )


def test_an_internal_error_is_told_by_a_mark_only(
    on: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    on.bench.kernel.refuse = lambda item: {}[item]  # type: ignore[index]
    with pytest.raises(Refused) as caught:
        on.docker.create_network()
    message = str(caught.value)
    assert message.startswith("internal error ")
    assert "; please report what the log says: `journalctl -u docker-flannel`, or" in message
    assert message.split()[2].rstrip(";") in caplog.text
    assert "KeyError" in caplog.text
    on.bench.kernel.refuse = lambda _: None
    on.bench.passes(3)
    on.bench.assert_clean()


def test_status_is_served(on: Setting) -> None:
    on.docker.create_network()
    reply = on.plugin.client.get("/status")
    assert reply.status_code == 200
    assert len(reply.get_json()["networks"]) == 1


def test_activation_asks_for_a_pass(on: Setting) -> None:
    on.plugin.call("NetworkDriver.GetCapabilities")
    assert not on.bench.woken()
    on.plugin.call("Plugin.Activate")
    assert on.bench.woken()


# --- deletes ---


@pytest.mark.parametrize("known", [True, False])
def test_deletes_of_what_is_gone_succeed_and_do_nothing(on: Setting, *, known: bool) -> None:
    net = on.docker.create_network() if known else Net("e" * 64, "10.2.0.0/27/0badcafe")
    before = on.bench.state, on.bench.observed()
    ids = {"NetworkID": net.id, "EndpointID": "d" * 64}
    bodies = {
        "NetworkDriver.RevokeExternalConnectivity": ids,
        "NetworkDriver.Leave": ids,
        "NetworkDriver.DeleteEndpoint": ids,
        "NetworkDriver.EndpointOperInfo": ids,
        "IpamDriver.ReleaseAddress": {"PoolID": net.pool, "Address": "10.2.0.30"},
        "IpamDriver.ReleasePool": {"PoolID": "10.2.0.224/27/0badcafe"},
        "NetworkDriver.DeleteNetwork": {"NetworkID": "e" * 64},
    }
    for method, body in bodies.items():
        assert on.plugin.ask(method, body)[0] == 200, method
    for body in ({"PoolID": "", "Address": "10.2.0.1"}, {"PoolID": net.pool, "Address": ""}, {}):
        assert on.plugin.ask("IpamDriver.ReleaseAddress", body) == (200, {})
    assert (on.bench.state, on.bench.observed()) == before


# --- endpoints ---


@pytest.mark.parametrize(
    ("sent", "made", "reply"),
    [
        ("", "02:42:0a:02:00:02", {"MacAddress": "02:42:0a:02:00:02"}),
        ("02:42:AC:11:00:09", "02:42:ac:11:00:09", {}),
    ],
)
def test_a_mac_is_made_from_the_address_unless_docker_gives_one(
    sent: str, made: str, reply: dict[str, str], on: Setting
) -> None:
    net = on.docker.create_network()
    body = {
        "NetworkID": net.id,
        "EndpointID": "e" * 64,
        "Interface": {"Address": on.docker.address(net), "AddressIPv6": "", "MacAddress": sent},
    }
    for _ in range(2):
        assert on.plugin.call("NetworkDriver.CreateEndpoint", body) == {"Interface": reply}
    assert (on.veth().mac, on.veth().hairpin) == (made, False)
    assert on.bench.state.endpoints["e" * 64].mac == made


def test_where_docker_publishes_there_is_a_way_to_other_hosts_and_no_gateway(on: Setting) -> None:
    net = on.docker.create_network(options={"flannel.publish": "docker"})
    made = on.docker.start(net, port(80, 8080))
    ids = {"NetworkID": net.id, "EndpointID": made.id}
    reply = on.plugin.call("NetworkDriver.Join", {**ids, "SandboxKey": "/x"})
    assert set(reply) == {"InterfaceName", "StaticRoutes"}
    routes = [IPv4Network(route["Destination"]) for route in reply["StaticRoutes"]]
    lease = on.bench.state.lease
    assert lease is not None
    assert sum(route.num_addresses for route in routes) == 2**16 - 2**8
    assert not any(route.overlaps(lease.subnet) for route in routes)
    assert {(r["RouteType"], r["NextHop"]) for r in reply["StaticRoutes"]} == {
        (0, net.gateway.split("/")[0])
    }
    body = {**ids, "Options": portmap(port(80, 8080))}
    assert on.plugin.call("NetworkDriver.ProgramExternalConnectivity", body) == {}
    assert on.ports_of(made.id) == []
    on.bench.assert_agrees()


def test_an_internal_network_has_no_gateway_and_publishes_nothing(on: Setting) -> None:
    net = on.docker.create_network(internal=True)
    made = on.docker.start(net)
    ids = {"NetworkID": net.id, "EndpointID": made.id}
    assert on.plugin.call("NetworkDriver.Join", {**ids, "SandboxKey": "/x"}) == {
        "InterfaceName": {"SrcName": f"flc{made.id[:12]}", "DstPrefix": "eth"},
        "DisableGatewayService": True,
    }
    before = on.bench.state, on.bench.observed()
    body = {**ids, "Options": portmap(port(80, 8080))}
    assert on.plugin.call("NetworkDriver.ProgramExternalConnectivity", body) == {}
    assert on.ports_of(made.id) == []
    assert (on.bench.state, on.bench.observed()) == before


def test_the_options_of_a_network_are_used(on: Setting) -> None:
    net = on.docker.create_network(
        options={
            "com.docker.network.driver.mtu": "1300",
            "com.docker.network.container_iface_prefix": "net",
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        }
    )
    made = on.docker.start(net)
    assert on.veth().mtu == 1300
    (bridge,) = (t for t in on.bench.observed() if isinstance(t, Bridge))
    assert bridge.mtu == 1300
    body = {"NetworkID": net.id, "EndpointID": made.id, "SandboxKey": "/x"}
    names = on.plugin.call("NetworkDriver.Join", body)["InterfaceName"]
    assert names["DstPrefix"] == "net"
    kinds = {type(t) for t in on.bench.observed() if isinstance(t, FirewallEntry)}
    assert kinds == {
        OverlayPrefix, ClosedPrefix, LeasePrefix, Uplink, BridgePair, SourcePrefix,
    }  # fmt: skip


def test_reserved_addresses_stay_reserved(on: Setting) -> None:
    net = Net("e" * 64)
    reply = on.plugin.call("IpamDriver.RequestPool", {"Pool": "10.2.0.0/27"})
    net.pool = reply["PoolID"]
    gateway, aux = on.docker.address(net, kind=GATEWAY), on.docker.address(net, "10.2.0.2")
    body: dict[str, Any] = {
        "NetworkID": net.id,
        "IPv4Data": [
            {
                "AddressSpace": "flannel",
                "Pool": "10.2.0.0/27",
                "Gateway": gateway,
                "AuxAddresses": {"router": aux},
            }
        ],
    }
    for _ in range(2):
        on.plugin.call("NetworkDriver.CreateNetwork", body)
    on.bench.passes(5)
    assert on.docker.address(net) == "10.2.0.3/27"
    with pytest.raises(Refused, match=r"address 10.2.0.2 is already in use"):
        on.docker.address(net, "10.2.0.2")


def test_a_block_that_dockers_own_ipam_cut_from_the_lease_is_used(on: Setting) -> None:
    body = {
        "NetworkID": "e" * 64,
        "Options": {},
        "IPv4Data": [
            {"AddressSpace": "LocalDefault", "Pool": "10.2.0.64/26", "Gateway": "10.2.0.65/26"}
        ],
    }
    for _ in range(2):
        assert on.plugin.call("NetworkDriver.CreateNetwork", body) == {}
    on.bench.assert_agrees()
    assert on.docker.create_network().block == "10.2.0.0/27"
    assert on.plugin.call("NetworkDriver.DeleteNetwork", {"NetworkID": "e" * 64}) == {}
    assert [str(p.cidr) for p in on.bench.state.pools.values()] == ["10.2.0.0/27"]
    assert "10.2.0.64/26" in on.bench.state.freed


def test_what_the_host_uses_is_looked_up_anew_for_every_block(on: Setting) -> None:
    on.bench.survey.now = replace(FACTS, onlink=(*FACTS.onlink, *_lease_half(on.bench)))
    assert on.docker.create_network().block == "10.2.0.128/27"


def _lease_half(bench: Bench) -> list[Any]:
    assert bench.state.lease is not None
    return list(bench.state.lease.subnet.subnets())[:1]
