"""Ports, and many calls at once, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from driver.docker.engine import Container, Names
from driver.docker.naming import KnownNames
from driver.errors import Conflict, FlannelError
from driver.model.firewall import PortMap
from driver.model.objects import HostObject, PortSocket
from tests.unit.docker import Net, Refused, port, portmap
from tests.unit.plugin import Plugin, Setting

# --- ports ---


def test_program_replaces_what_was_published(on: Setting) -> None:
    made = on.docker.start(on.docker.create_network(), port(80, 8080), port(443, 8443))
    assert on.veth().hairpin
    for _ in range(2):
        on.docker.publish(made, port(81, 8080), port(53, 53, proto=17))
        assert on.ports_of(made.id) == ["0.0.0.0:53->53/udp", "0.0.0.0:8080->81/tcp"]
        held = {(t.proto, t.port) for t in on.bench.observed() if isinstance(t, PortSocket)}
        assert held == {("tcp", 8080), ("udp", 53)}
        on.bench.assert_agrees()
    on.docker.publish(made)
    assert on.ports_of(made.id) == []
    assert not on.veth().hairpin


def test_a_port_out_of_a_range_passes_over_what_others_have(on: Setting) -> None:
    on.bench.ports.taken = {8000, 8001}
    net = on.docker.create_network()
    first = on.docker.start(net, port(80, 8000, 8003))
    second = on.docker.start(net, port(80, 8000, 8003))
    got = {on.ports_of(c.id)[0].split("->")[0] for c in (first, second)}
    assert got == {"0.0.0.0:8002", "0.0.0.0:8003"}
    with pytest.raises(Refused, match=r"no free host port for container port 80/tcp: all of 8000-"):
        on.docker.start(net, port(80, 8000, 8003))
    on.bench.assert_agrees()


def test_every_range_passes_over_what_others_have(on: Setting) -> None:
    """Twenty ranges, half of what each may have being taken: none of them starts anew for it."""
    on.bench.ports.taken = set(range(8000, 8040, 2))
    net = on.docker.create_network()
    made = on.docker.start(net, *(port(80 + i, 8000, 8039) for i in range(20)))
    assert len(on.ports_of(made.id)) == 20
    on.bench.assert_agrees()


def test_a_range_passes_over_a_number_that_is_fixed_for_another_protocol(on: Setting) -> None:
    def taken(item: HostObject) -> FlannelError | None:
        if isinstance(item, PortSocket) and item.proto == "udp" and item.port < 8005:
            return Conflict("taken", ("udp", item.ip, item.port))
        return None

    on.bench.ports.refuse = taken
    fixed = (port(80 + i, 8000 + i) for i in range(10))
    made = on.docker.start(on.docker.create_network(), *fixed, port(53, 8000, 8005, proto=17))
    assert "0.0.0.0:8005->53/udp" in on.ports_of(made.id)


def test_a_port_without_a_number_is_ephemeral(on: Setting) -> None:
    made = on.docker.start(on.docker.create_network(), port(80))
    (text,) = on.ports_of(made.id)
    assert 1024 <= int(text.split(":")[1].split("->")[0]) <= 65535


@pytest.mark.parametrize("by", ["endpoint", "program"])
def test_a_port_that_is_taken_is_refused_in_dockers_words(by: str, on: Setting) -> None:
    net = on.docker.create_network()
    if by == "endpoint":
        on.docker.start(net, port(80, 8080))
    else:
        on.bench.ports.taken = {8080}
    made = on.docker.start(net)
    before = on.bench.state, on.bench.observed()
    ids = {"NetworkID": net.id, "EndpointID": made.id}
    body = {**ids, "Options": portmap(port(443, 8443), port(80, 8080))}
    status, message = on.plugin.refusal("NetworkDriver.ProgramExternalConnectivity", body)
    assert status == 409
    assert message.startswith("Bind for 0.0.0.0:8080 failed: port is already allocated")
    assert (on.bench.state, on.bench.observed()) == before
    on.bench.assert_agrees()


def test_a_refusal_names_the_container_that_docker_named_before(on: Setting) -> None:
    asked = list[Names]()

    def ask() -> Names:
        asked.append(Names({"n": "app"}, {holder.id: Container("8" * 64, "web")}))
        return asked[-1]

    names = KnownNames(ask, lambda: 1)
    plugin = Plugin(on.bench.core, names=names)
    net = on.docker.create_network()
    holder, made = on.docker.start(net, port(80, 8080)), on.docker.start(net)
    names.look()
    body = {"NetworkID": net.id, "EndpointID": made.id, "Options": portmap(port(80, 8080))}
    _, message = plugin.refusal("NetworkDriver.ProgramExternalConnectivity", body)
    assert message.endswith(f", for tcp by endpoint {holder.id[:12]} (container web)")
    assert len(asked) == 1, "not in the call"
    before = names.outdated
    join = {"NetworkID": net.id, "EndpointID": made.id, "SandboxKey": "/run/x"}
    plugin.call("NetworkDriver.Join", join)
    assert (before, names.outdated) == (False, True)
    assert len(asked) == 1, "nor in one that brings a name"


def test_the_connections_of_the_program_that_has_a_port_are_led_nowhere(on: Setting) -> None:
    net = on.docker.create_network()
    made = on.docker.start(net, port(80, 8081))
    on.bench.ports.taken = {8080}
    on.bench.world.events.clear()
    with pytest.raises(Refused, match="port is already allocated"):
        on.docker.publish(made, port(80, 8080), port(80, 8082, 8083))
    plans = [what for who, what in on.bench.world.events if who == "adapter"]
    assert plans
    assert not any(key[0] is PortMap for plan in plans for key in plan.touched())
    on.bench.assert_agrees()


# --- many at once ---


def test_fifty_addresses_asked_for_at_once_are_fifty_addresses(on: Setting) -> None:
    reply = on.plugin.call("IpamDriver.RequestPool", {"Pool": "10.2.0.0/26"})
    net = Net("e" * 64, reply["PoolID"])
    with ThreadPoolExecutor(16) as threads:
        got = list(threads.map(lambda _: on.docker.address(net), range(50)))
    assert len(set(got)) == 50
    assert {h.ip for h in on.bench.journal.load().holds.values()} == {
        h.ip for h in on.bench.state.holds.values()
    }
    assert len(on.bench.state.holds) == 50


def test_containers_started_and_stopped_at_once_leave_nothing(on: Setting) -> None:
    net = on.docker.create_network("10.2.0.0/26")

    def live(number: int) -> None:
        on.docker.stop(on.docker.start(net, port(80, 8000 + number)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(live, range(24)))
    on.bench.assert_agrees()
    assert not on.bench.state.endpoints
    on.docker.remove_network(net)
    on.bench.assert_clean()
