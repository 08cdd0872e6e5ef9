"""Networks whose addresses Docker's IPAM does not take from ours: `-d flannel` and no more."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from driver.api.body import INTERNAL
from driver.errors import HostError
from driver.model.firewall import (
    BridgePair,
    ClosedPrefix,
    DockerMasquerade,
    FirewallEntry,
    InternalBridge,
    LeasePrefix,
    Masquerade,
    OverlayPrefix,
    PortMap,
    SourcePrefix,
    Uplink,
)
from driver.model.objects import HostObject, LinkAddress, SandboxAddress, Veth
from driver.model.records import ANY, short
from tests.unit.docker import Refused, port
from tests.unit.plugin import Plugin, Setting
from tests.unit.short import (
    FOREIGN,
    IPV4_OFF,
    NET,
    NET2,
    attach,
    create,
    detach,
    end_id,
    foreign,
    join,
    operational,
    publish,
    restart,
    set_in_sandboxes,
    start,
)


def test_a_subnet_of_dockers_own_choice_gets_a_block_beside_it(
    on: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        create(on, FOREIGN)
        on.bench.assert_agrees()
    [said] = [r.message for r in caplog.records if "beside Docker's own" in r.message]
    assert "--ipam-driver flannel" in said
    assert "setup-daemon" in said
    gateways = {str(t.ip) for t in on.bench.observed() if isinstance(t, LinkAddress)}
    assert gateways == {"10.2.0.1/27", "172.18.0.1/16"}
    end = end_id(1)
    for _ in range(2):
        assert attach(on, end, "172.18.0.2/16") == {"MacAddress": "02:42:0a:02:00:02"}
    assert join(on, end)["Gateway"] == "172.18.0.1"
    publish(on, end, port(80, 8080))
    made = on.bench.state.endpoints[end]
    assert (str(made.ip), str(made.docker_ip)) == ("10.2.0.2/27", "172.18.0.2/16")
    assert set_in_sandboxes(on) == ["10.2.0.2/27 via 10.2.0.1"]
    on.bench.assert_agrees()
    detach(on, end)
    on.bench.passes(1)
    on.bench.assert_agrees()
    assert [str(h.ip) for h in on.bench.state.holds.values()] == ["10.2.0.1"]
    on.plugin.call("NetworkDriver.DeleteNetwork", {"NetworkID": NET})
    on.bench.assert_clean()


def test_the_rules_know_both_addresses(on: Setting) -> None:
    create(on, FOREIGN)
    create(on, foreign("172.19.0.0/16"), NET2, {INTERNAL: True})
    end = start(on, 1, "172.18.0.2/16")
    publish(on, end, port(80, 8080))
    found = {t for t in on.bench.observed() if isinstance(t, FirewallEntry)}
    bridge, inner = (f"fl-{short(net)}" for net in (NET, NET2))
    lease, docker = IPv4Network("10.2.0.0/27"), IPv4Network("172.18.0.0/16")
    assert found == {
        OverlayPrefix(IPv4Network("10.2.0.0/16")),
        ClosedPrefix(IPv4Network("10.2.0.0/16")),
        LeasePrefix(IPv4Network("10.2.0.0/24")),
        Uplink("br-lan"),
        BridgePair(bridge, bridge, NET),
        BridgePair(inner, inner, NET2),
        InternalBridge(inner, NET2),
        Masquerade(lease, NET),
        DockerMasquerade(docker, NET),
        SourcePrefix(lease, bridge, NET),
        SourcePrefix(docker, bridge, NET),
        SourcePrefix(IPv4Network("10.2.0.32/27"), inner, NET2),
        SourcePrefix(IPv4Network("172.19.0.0/16"), inner, NET2),
        PortMap("tcp", ANY, 8080, docker[2], 80, end),
    }


def test_an_internal_one_gives_a_lease_address_and_no_way_out(on: Setting) -> None:
    create(on, FOREIGN, options={INTERNAL: True})
    end = end_id(1)
    attach(on, end, "172.18.0.2/16")
    assert "Gateway" not in join(on, end)
    operational(on, end)
    assert set_in_sandboxes(on) == ["10.2.0.2/27 via None"]


def test_the_lease_address_is_set_as_soon_as_docker_has_put_the_interface_there(
    on: Setting,
) -> None:
    create(on, FOREIGN)
    on.bench.woken()
    ends = [end_id(n) for n in range(1, 5)]
    for number, end in enumerate(ends):
        attach(on, end, f"172.18.0.{number + 2}/16")
        join(on, end)
        on.bench.kernel.moved.discard(f"flc{short(end)}")  # as up to Docker 26: later
        publish(on, end)
        operational(on, end)
    assert set_in_sandboxes(on) == []
    on.bench.passes(1)
    assert set_in_sandboxes(on) == []
    assert "sandbox address" not in str(on.bench.core.history.last), "nothing is to be repaired yet"
    assert on.bench.core.again_s() is not None, "a pass has to look again soon"
    on.bench.kernel.moved |= {f"flc{short(end)}" for end in ends}
    operational(on, ends[0])
    publish(on, ends[1])
    on.bench.core.set_sandbox_addresses(
        frozenset({f"flh{short(ends[2])}", "flh000000000000", "eth0"})
    )
    assert len(set_in_sandboxes(on)) == 3
    assert not on.bench.woken()
    on.bench.passes(1)
    assert len(set_in_sandboxes(on)) == 4
    on.bench.assert_agrees()


def test_a_sandbox_that_cannot_be_entered_fails_no_call_and_is_told(on: Setting) -> None:
    def refuse(item: HostObject) -> HostError | None:
        return HostError("no way in") if isinstance(item, SandboxAddress) else None

    create(on, FOREIGN)
    on.bench.sandboxes.refuse = refuse
    end = start(on, 1, "172.18.0.2/16")
    publish(on, end, port(80, 8080))
    operational(on, end)
    assert on.bench.woken()
    assert on.ports_of(end) == ["0.0.0.0:8080->80/tcp"]
    for report in on.bench.passes(9):
        assert report.errors == ("no way in",)
    status = on.plugin.client.get("/status").json
    assert status is not None
    assert status["problems"] == ["no way in"]
    on.bench.sandboxes.refuse = lambda _: None
    on.bench.passes(11)
    assert set_in_sandboxes(on) == ["10.2.0.2/27 via 10.2.0.1"]
    assert on.bench.core.history.last is not None
    assert not on.bench.core.history.last.errors


def test_a_hint_that_says_nothing_is_answered_all_the_same(on: Setting) -> None:
    for body in (b"", b"{", {}, {"EndpointID": "../x"}, {"EndpointID": "f" * 64}):
        status, reply = on.plugin.ask("NetworkDriver.EndpointOperInfo", body)
        assert (status, reply) == (200, {"Value": {}})


def test_a_restart_finds_the_lease_addresses_again(on: Setting) -> None:
    create(on, FOREIGN)
    start(on, 1, "172.18.0.2/16")
    restart(on)
    assert set_in_sandboxes(on) == ["10.2.0.2/27 via 10.2.0.1"]
    on.bench.sandboxes.lose(SandboxAddress)
    on.bench.passes(1)
    assert set_in_sandboxes(on) == ["10.2.0.2/27 via 10.2.0.1"]
    on.bench.assert_agrees()


def test_an_address_that_docker_gives_again_after_a_crash_is_free(on: Setting) -> None:
    create(on, FOREIGN)
    publish(on, start(on, 1, "172.18.0.2/16"), port(80, 8080))
    with pytest.raises(Refused, match=r"address 172\.18\.0\.2 is in use by endpoint 000000000001"):
        attach(on, end_id(2), "172.18.0.2/16")
    on.bench.kernel.lose(Veth)  # its sandbox went, and Docker does not tell
    publish(on, start(on, 2, "172.18.0.2/16"), port(80, 8080))
    assert list(on.bench.state.endpoints) == [end_id(2)]
    on.bench.passes(3)
    on.bench.assert_agrees()


def test_two_such_networks_stay_apart(on: Setting) -> None:
    create(on, FOREIGN)
    create(on, foreign("172.19.0.0/16"), NET2)
    one, two = start(on, 1, "172.18.0.2/16"), start(on, 2, "172.19.0.2/16", NET2)
    on.bench.passes(1)
    ips = {e: str(on.bench.state.endpoints[e].ip) for e in (one, two)}
    assert ips == {one: "10.2.0.2/27", two: "10.2.0.34/27"}
    on.bench.assert_agrees()
    with pytest.raises(Refused, match="endpoint 000000000001 exists already, with other"):
        attach(on, one, "172.18.0.9/16")
    with pytest.raises(Refused, match=r"Interface.Address 172.19.0.9/16 is not inside the netw"):
        attach(on, end_id(3), "172.19.0.9/16")


def test_a_subnet_of_dockers_own_choice_can_be_refused(on: Setting) -> None:
    on.plugin = Plugin(on.bench.core, require_ipam=True)
    with pytest.raises(Refused) as caught:
        create(on, FOREIGN)
    assert "add `--ipam-driver flannel`" in str(caught.value)
    assert "compose, below `driver: flannel`: `ipam: {driver: flannel}`" in str(caught.value)
    create(on, foreign("10.2.0.64/26", "10.2.0.65/26"))
    create(on, IPV4_OFF, NET2)
    assert all(n.docker_gateway is None for n in on.bench.state.networks.values())


@pytest.mark.parametrize("subnet", ["172.18.0.0/16", "10.2.0.64/26"])
def test_a_subnet_that_docker_gives_again_is_of_a_network_it_forgot(
    on: Setting, subnet: str
) -> None:
    first = str(IPv4Network(subnet)[1]) + subnet[-3:]
    create(on, foreign(subnet, first))
    attach(on, end_id(1), first.replace(".1/", ".2/").replace(".65/", ".66/"))
    create(on, foreign(subnet, first), NET2)  # that endpoint was never joined
    assert list(on.bench.state.networks) == [NET2]
    assert not on.bench.state.endpoints
    on.bench.assert_agrees()
    start(on, 2, first.replace(".1/", ".2/").replace(".65/", ".66/"), NET2)
    with pytest.raises(Refused, match=rf"{subnet} overlaps {subnet} of network dddddddddddd"):
        create(on, foreign(subnet, first), "f" * 64)
    on.bench.kernel.lose(Veth)
    create(on, foreign(subnet, first), "f" * 64)
    assert list(on.bench.state.networks) == ["f" * 64]
    on.bench.passes(2)
    on.bench.assert_agrees()
