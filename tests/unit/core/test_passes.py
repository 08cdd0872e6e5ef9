"""The slow path: what passes repair, drop, adopt and leave alone."""

from __future__ import annotations

import errno
import threading
from ipaddress import IPv4Address

import pytest

from driver.core.passes import Report
from driver.errors import Conflict
from driver.model.facts import Facts
from driver.model.firewall import ForwardGate, PortMap, Ruleset
from driver.model.objects import (
    Bridge,
    HostObject,
    PortSocket,
    Sysctl,
    UnreachableRoute,
    Veth,
    noun,
)
from driver.model.records import ANY, replace, short
from tests.unit.bench import WELL, Bench
from tests.unit.docker import Container, Docker, port
from tests.unit.fakes import FACTS

# --- repair ---


@pytest.mark.parametrize(
    "lost", [Bridge, Ruleset, PortMap, ForwardGate, UnreachableRoute, Sysctl, PortSocket]
)
@pytest.mark.usefixtures("made")
def test_what_is_lost_is_made_again(bench: Bench, lost: type[HostObject]) -> None:
    bench.passes(1)
    objects = bench.observed()
    for adapter in bench.adapters:
        adapter.lose(lost)
    assert bench.observed() != objects
    (report,) = bench.passes(1)
    assert noun(lost) in str(report)
    assert bench.observed() == objects
    assert str(bench.passes(1)[0]) == WELL


def test_what_is_nobodys_is_taken_away_and_what_differs_is_changed(
    bench: Bench, made: Container
) -> None:
    objects = bench.observed()
    veth = next(t for t in objects if isinstance(t, Veth))
    bench.kernel.plant(replace(veth, mtu=1), Bridge("fl-old", "02:66:00:00:00:00", 1450, "x"))
    bench.nft.plant(PortMap("tcp", ANY, 1, IPv4Address("10.2.0.2"), 1, made.id))
    (report,) = bench.passes(1)
    assert str(report) == "repaired 1 bridge, 1 port map, 1 veth"
    assert bench.observed() == objects


def test_a_boot_makes_everything_again_but_veths_of_dead_sandboxes(
    bench: Bench, made: Container
) -> None:
    objects = bench.observed()
    for adapter in bench.adapters:
        adapter.objects.clear()  # a reboot
    bench.boot()
    assert {t for t in objects if not isinstance(t, Veth)} == bench.observed()
    bench.passes(1)
    assert made.id not in bench.state.endpoints
    bench.assert_agrees()


def test_the_veth_of_a_joined_endpoint_is_never_made_again(bench: Bench, made: Container) -> None:
    bench.passes(1)
    bench.kernel.lose(Veth)
    bench.world.events.clear()
    bench.passes(4)
    plans = [what for who, what in bench.world.events if who == "adapter"]
    assert not any(isinstance(t, Veth) for plan in plans for t in plan.add)
    assert made.id not in bench.state.endpoints


def test_the_veth_of_an_endpoint_that_is_not_joined_yet_is_made_again(
    bench: Bench, docker: Docker
) -> None:
    net = docker.create_network()
    interface = {"Address": docker.address(net), "MacAddress": ""}
    bench.call("NetworkDriver.CreateEndpoint", NetworkID=net.id, EndpointID="e" * 64,
               Interface=interface)  # fmt: skip
    objects = bench.observed()
    bench.kernel.lose(Veth)
    bench.passes(1, apart_s=1)
    assert bench.observed() == objects


# --- the dead ---


def dropped(report: Report) -> str:
    return "; ".join(report.adopted)


def test_a_container_that_died_is_dropped_after_two_passes(bench: Bench, made: Container) -> None:
    bench.passes(1)
    bench.kernel.lose(Veth)
    first, second, third = bench.passes(3)
    assert dropped(first) == ""
    assert dropped(second) == f"endpoint {short(made.id)} lost its veth with its sandbox: dropped"
    assert not third.errors
    assert not bench.state.endpoints
    assert not any(isinstance(t, PortSocket | Veth) for t in bench.observed())


@pytest.mark.parametrize("busy", [True, False])
def test_a_link_that_is_away_for_one_pass_only_is_no_dead_container(
    bench: Bench, made: Container, *, busy: bool
) -> None:
    bench.passes(1)
    veth = next(t for t in bench.observed() if isinstance(t, Veth))
    for _ in range(4):
        bench.kernel.lose(Veth)
        bench.passes(1)
        bench.kernel.plant(veth)
        if busy:
            bench.gate.lose(ForwardGate)  # so that the pass between has something to do
        bench.passes(1)
    assert made.id in bench.state.endpoints


@pytest.mark.parametrize(
    ("lost", "passes"),
    [
        ("DeleteEndpoint", 4),
        ("ReleaseAddress", 4),
        ("ReleasePool", 5),
        ("DeleteNetwork", 2),
    ],
)
def test_what_docker_forgot_goes_and_the_rest_stays(
    lost: str, passes: int, bench: Bench, made: Container, docker: Docker
) -> None:
    keep = docker.start(docker.create_network(), port(80, 9090))
    before = {t for t in bench.observed() if getattr(t, "owner", "") == keep.id}
    send, docker._send = docker._send, lambda method, body: (
        {} if method.endswith(lost) else send(method, body)
    )  # fmt: skip
    docker.stop(made)
    docker.remove_network(made.net)
    assert bench.state.networks.keys() >= {keep.net.id}
    bench.passes(passes)
    assert set(bench.state.networks) == {keep.net.id}
    assert set(bench.state.endpoints) == {keep.id}
    assert {h.pool for h in bench.state.holds.values()} == {keep.net.pool}
    assert set(bench.state.pools) == {keep.net.pool}
    assert {t for t in bench.observed() if getattr(t, "owner", "") == keep.id} == before
    bench.assert_agrees()


def test_what_was_asked_for_and_never_used_goes_after_a_minute(
    bench: Bench, made: Container, docker: Docker
) -> None:
    bench.call("IpamDriver.RequestPool", Pool="10.2.0.64/27")
    docker.address(made.net)
    bench.clock.advance(59)
    bench.passes(2, apart_s=0.4)
    assert (len(bench.state.pools), len(bench.state.holds)) == (2, 3)
    first, second = bench.passes(2, apart_s=1)
    assert first.adopted == ()
    assert dropped(second) == (
        "address 10.2.0.3 was asked for and not used: dropped; "
        "block 10.2.0.64/27 was asked for and not used: dropped"
    )
    assert (len(bench.state.pools), len(bench.state.holds)) == (1, 2)


def test_a_living_container_outlives_any_number_of_passes(bench: Bench, made: Container) -> None:
    state, objects = bench.state, bench.observed()
    assert [str(report) for report in bench.passes(50)] == [WELL] * 50
    assert (bench.state, bench.observed()) == (state, objects)
    assert made.id in state.endpoints


def test_what_died_unheard_makes_way_at_once(bench: Bench, docker: Docker) -> None:
    """Docker with its own IPAM starts a container anew at once, and deletes no endpoint it lost."""
    net = docker.create_network()
    dead = docker.start(net, port(80, 8080))
    bench.kernel.lose(Veth)
    body = {"NetworkID": net.id, "EndpointID": "e" * 64, "Interface": {"Address": dead.address}}
    bench.call("NetworkDriver.CreateEndpoint", **body)
    assert set(bench.state.endpoints) == {"e" * 64}
    bench.call("NetworkDriver.Join", NetworkID=net.id, EndpointID="e" * 64, SandboxKey="/x")
    bench.kernel.moved.add("flceeeeeeeeeeee")
    with pytest.raises(Conflict, match="is in use by endpoint eeeeeeeeeeee"):
        bench.call("NetworkDriver.CreateEndpoint", **{**body, "EndpointID": "d" * 64})


@pytest.mark.usefixtures("made")
def test_a_loop_goes_on_where_it_cannot_ask_whether_somebody_did(bench: Bench) -> None:
    stop, asked, seen = threading.Event(), threading.Event(), threading.Event()

    def disturbed() -> bool:
        asked.set()
        raise OSError(errno.EMFILE, "Too many open files")

    def facts() -> Facts:
        seen.set()
        return FACTS

    bench.survey.disturbed = disturbed  # type: ignore[method-assign]
    bench.survey.facts = facts  # type: ignore[method-assign]
    thread = threading.Thread(target=bench.loop.run, args=(stop,), daemon=True)
    thread.start()
    assert asked.wait(5)
    seen.clear()
    bench.core.wake()
    assert seen.wait(5)
    stop.set()
    bench.core.wake()
    thread.join(5)
    assert not thread.is_alive()
