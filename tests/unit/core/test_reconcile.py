"""The fast path: a change is on the host and in the journal, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from driver.errors import BadRequest, Conflict, FlannelError, HostError, StoreError
from driver.model.firewall import FirewallEntry, Ruleset, Uplink
from driver.model.identity import Key
from driver.model.objects import Bridge, HostObject, Sysctl, UnreachableRoute, Veth
from driver.model.records import Endpoint, replace
from tests.unit.bench import Bench, make_core
from tests.unit.docker import Container, Docker, Net, Refused, port
from tests.unit.fake_adapters import nothing
from tests.unit.fakes import FACTS

Action = Callable[[Docker, Net, Container], Any]


def busy() -> tuple[Bench, Docker, Net, Container]:
    bench = make_core()
    docker = Docker(bench)
    net = docker.create_network()
    made = docker.start(net, port(80, 8080))
    bench.core.converge()
    bench.world.events.clear()
    return bench, docker, net, made


def ids(net: Net, made: Container) -> dict[str, str]:
    return {"NetworkID": net.id, "EndpointID": made.id}


ADDING: dict[str, Action] = {
    "network": lambda docker, _net, _made: docker.create_network(),
    "container": lambda docker, net, _made: docker.start(net, port(81, 8081)),
    "ports": lambda docker, _net, made: docker.publish(made, port(80, 8080), port(82, 8082)),
}
TAKING: dict[str, Action] = {
    "network": lambda docker, net, _: docker._send(
        "NetworkDriver.DeleteNetwork", {"NetworkID": net.id}
    ),
    "endpoint": lambda docker, net, made: docker._send(
        "NetworkDriver.DeleteEndpoint", ids(net, made)
    ),
    "ports": lambda docker, net, made: docker._send("NetworkDriver.Leave", ids(net, made)),
}


def refuse_all(bench: Bench, error: FlannelError | None) -> None:
    for adapter in bench.adapters:
        adapter.refuse = (lambda _: error) if error else nothing


# --- order ---


@pytest.mark.parametrize("name", [*ADDING, *(f"no {name}" for name in TAKING)])
def test_the_host_is_changed_before_the_journal(name: str) -> None:
    bench, docker, net, made = busy()
    action = TAKING[name[3:]] if name.startswith("no ") else ADDING[name]
    action(docker, net, made)
    order = bench.world.order()
    assert "adapter" in order
    assert order[-1] == "journal"
    first_change = order.index("adapter")
    assert "journal" in order[first_change:]
    bench.assert_agrees()


def test_things_are_made_from_the_first_host_to_the_last_and_removed_the_other_way() -> None:
    bench, docker, net, made = busy()

    def kinds() -> list[str]:
        plans = [what for who, what in bench.world.events if who == "adapter"]
        bench.world.events.clear()
        return [name for plan in plans for name in sorted(k[0].__name__ for k in plan.touched())]

    docker.publish(made)
    assert kinds() == ["PortMap", "PortSocket", "LoopbackGuard", "Veth"]
    docker.publish(made, port(80, 8080))
    assert kinds() == ["PortSocket", "LoopbackGuard", "Veth", "PortSocket", "PortMap"], (
        "a host port first"
    )
    docker.quietly("NetworkDriver.DeleteNetwork", NetworkID=net.id)
    assert kinds()[0] == "ForwardGate"


@pytest.mark.parametrize(
    ("action", "durable"),
    [
        (ADDING["network"], [True, False, True]),
        (ADDING["container"], [False] * 4),
        (TAKING["network"], [True]),
        (TAKING["endpoint"], [False]),
    ],
)
def test_networks_are_written_durably_and_containers_quickly(
    action: Action, durable: list[bool]
) -> None:
    bench, docker, net, made = busy()
    action(docker, net, made)
    assert [what for who, what in bench.world.events if who == "journal"] == durable


def test_a_change_of_nothing_writes_nothing() -> None:
    bench, docker, _net, _made = busy()
    docker.quietly("NetworkDriver.DeleteEndpoint", NetworkID="e" * 64, EndpointID="e" * 64)
    assert bench.world.events == []


# --- failures ---


@pytest.mark.parametrize("name", ADDING)
def test_a_host_that_refuses_leaves_the_journal_untouched(name: str) -> None:
    bench, docker, net, made = busy()
    state, objects = bench.state, bench.observed()
    refuse_all(bench, HostError("the host says no"))
    with pytest.raises(Refused, match="the host says no"):
        ADDING[name](docker, net, made)
    assert (bench.state.networks, bench.state.endpoints) == (state.networks, state.endpoints)
    assert bench.journal.load() == bench.state
    assert bench.observed() >= objects - {t for t in objects if isinstance(t, Veth)}
    refuse_all(bench, None)
    assert bench.woken()
    bench.core.converge()
    assert bench.observed() == objects


@pytest.mark.parametrize("name", [*ADDING, *(f"no {name}" for name in TAKING)])
def test_a_journal_that_fails_leaves_the_host_as_it_was(name: str) -> None:
    bench, docker, net, made = busy()
    before = bench.state, bench.observed()
    bench.journal.error = StoreError("the disk is full")
    action = TAKING[name[3:]] if name.startswith("no ") else ADDING[name]
    with pytest.raises(Refused, match="the disk is full"):
        action(docker, net, made)
    assert (bench.state, bench.observed()) == before
    assert bench.journal.load() == bench.state
    bench.journal.error = None
    action(docker, net, made)
    bench.assert_agrees()


def test_what_was_half_made_is_undone_item_by_item() -> None:
    """Whichever single object of a start fails for good, the host is as it was before."""
    bench, docker, net, made = busy()
    objects = bench.observed()
    docker.stop(docker.start(net, port(81, 8081), port(53, 53, proto=17, host="10.0.0.1")))
    tried = 0
    for kind in (Veth, FirewallEntry, Bridge, Ruleset, Sysctl, UnreachableRoute):
        for action in ADDING.values():
            for adapter in bench.adapters:
                adapter.refuse = lambda item: (
                    HostError(f"no {item.key}") if isinstance(item, kind) else None
                )
            try:
                action(docker, net, made)
            except Refused:
                tried += 1
                assert bench.observed() == objects, kind
                assert bench.journal.load() == bench.state
                continue
            finally:
                refuse_all(bench, None)
            for other in [c for c in net.containers if c is not made]:
                docker.stop(other)
            for other_id in [n for n in bench.state.networks if n != net.id]:
                pool = bench.state.networks[other_id].pool
                docker.remove_network(Net(other_id, pool))
            docker.publish(made, port(80, 8080))
            assert bench.observed() == objects
    assert tried >= 6


class Once:
    """An error for the first time that an object is made."""

    def __init__(self, error: FlannelError) -> None:
        self.error, self.seen = error, set[Key]()

    def __call__(self, item: HostObject) -> FlannelError | None:
        if item.key in self.seen:
            return None
        self.seen.add(item.key)
        return self.error


@pytest.mark.parametrize("name", ADDING)
def test_what_fails_once_is_tried_again(name: str) -> None:
    bench, docker, net, made = busy()
    refuse_all(bench, None)
    for adapter in bench.adapters:
        adapter.refuse = Once(HostError("just now"))
    ADDING[name](docker, net, made)
    bench.assert_agrees()


@pytest.mark.parametrize("error", [Conflict("it is taken"), BadRequest("no such address")])
def test_what_the_user_has_to_change_is_not_tried_again(error: FlannelError) -> None:
    bench, docker, _net, made = busy()
    before, tries = bench.observed(), []

    def refuse(item: HostObject) -> FlannelError | None:
        tries.append(item)
        return error

    bench.ports.refuse = refuse
    with pytest.raises(Refused, match=str(error)):
        docker.publish(made, port(80, 8080), port(82, 8082))
    assert len([t for t in tries if 8082 in t.key]) == 1
    bench.ports.refuse = nothing
    assert bench.observed() == before


@pytest.mark.parametrize("lost", [Bridge, Ruleset, FirewallEntry, UnreachableRoute])
def test_a_call_after_drift_repairs_first_and_succeeds(lost: type[HostObject]) -> None:
    bench, docker, net, _made = busy()
    for adapter in bench.adapters:
        adapter.lose(lost)
    docker.start(net, port(81, 8081))
    bench.core.converge()
    bench.assert_agrees()


@pytest.mark.parametrize("name", TAKING)
def test_what_cannot_be_taken_away_fails_no_call_and_is_left_to_the_next_pass(name: str) -> None:
    bench, docker, net, made = busy()
    bench.woken()
    for adapter in bench.adapters:
        adapter.stuck = set(adapter.objects)
    TAKING[name](docker, net, made)
    assert bench.journal.load() == bench.state
    assert bench.woken()
    for adapter in bench.adapters:
        adapter.stuck = set()
    bench.core.converge()
    bench.assert_agrees()


def test_a_pass_within_a_call_is_not_forgotten_by_the_call() -> None:
    """What that pass finds dead, or a lease it takes over, stays so when the call ends."""
    bench, docker, net, made = busy()
    dead = docker.start(net)
    bench.kernel.lose(Veth)  # both sandboxes died
    docker.quietly("NetworkDriver.DeleteEndpoint", NetworkID=net.id, EndpointID=made.id)
    bench.core.converge()  # the first pass suspects
    bench.nft.refuse = Once(HostError("just now"))
    docker.create_network()
    assert bench.journal.load() == bench.state, "memory and journal disagree"
    bench.core.converge()
    bench.passes(1)
    assert dead.id not in bench.state.endpoints
    bench.assert_agrees()


def test_an_error_inside_the_block_changes_nothing_and_frees_the_lock() -> None:
    bench, docker, _net, _made = busy()
    before = bench.state, bench.observed()
    with pytest.raises(KeyError), bench.core.edit() as edit:
        edit.drop(next(iter(edit.state.networks.values())))
        raise KeyError
    assert (bench.state, bench.observed()) == before
    docker.create_network()
    bench.assert_agrees()


def test_facts_that_change_during_a_call_do_no_harm() -> None:
    bench, docker, net, _made = busy()
    bench.survey.now = replace(FACTS, uplinks=frozenset({"br-lan", "br-new"}))
    docker.create_network()
    docker.start(net)
    bench.core.converge()
    bench.assert_agrees()
    assert Uplink("br-new") in bench.observed()


def test_endpoints_keep_their_place_while_others_come_and_go() -> None:
    bench, docker, net, made = busy()
    mine = bench.state.endpoints[made.id]
    for _ in range(5):
        docker.stop(docker.start(net, port(81, 8081)))
    assert bench.state.endpoints == {made.id: mine}
    assert isinstance(mine, Endpoint)
