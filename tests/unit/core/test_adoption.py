"""What runs goes on, and is known again, where the state is lost, older or another host's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest

from driver.model.facts import Resident
from driver.model.firewall import FirewallEntry, PortMap
from driver.model.objects import (
    Bridge,
    HostObject,
    LinkAddress,
    PortSocket,
    SandboxAddress,
    UnreachableRoute,
    Veth,
)
from driver.model.records import Endpoint, replace
from tests.unit.bench import Bench
from tests.unit.docker import Container, Docker, Refused, port
from tests.unit.fakes import FakeJournal, FakeSource

KINDS = ("flannel", "docker", "off")


@pytest.fixture(params=KINDS)
def lived(request: pytest.FixtureRequest, bench: Bench, docker: Docker) -> list[Container]:
    """Containers on a network of each kind, and on an internal one."""
    kind = request.param
    make = (
        docker.create_network if kind == "flannel" else lambda **o: docker.create_short(kind, **o)
    )
    outer, inner = make(), make(internal=True)
    made = [docker.start(outer, port(80, 8080), port(53, 53, proto=17)), docker.start(inner)]
    look_inside(bench)
    return made


def look_inside(bench: Bench) -> None:
    """Let the survey see in the sandboxes what Docker and the plugin put there."""
    for endpoint in bench.state.endpoints.values():
        network = bench.state.networks[endpoint.network]
        ips = [ip for ip in (endpoint.docker_ip, endpoint.ip) if ip]
        gateway = (network.docker_gateway or network.gateway).ip
        bench.survey.inside.append(
            Resident(
                endpoint.host_end,
                endpoint.sandbox or "",
                f"{network.interface_prefix}0",
                endpoint.mac,
                tuple(ips),
                frozenset() if network.internal else frozenset({gateway}),
            )
        )


def lose(bench: Bench, journal: FakeJournal | None = None) -> None:
    """Start the plugin anew with another state."""
    bench.journal = journal or FakeJournal(bench.world)
    bench.reboot()


def carried(bench: Bench) -> set[HostObject]:
    """What containers run by; sockets and what is in sandboxes go with the process."""
    return {t for t in bench.observed() if not isinstance(t, PortSocket | SandboxAddress)}


def test_a_lost_state_is_made_anew_and_nothing_on_the_host_changes(
    bench: Bench, docker: Docker, lived: list[Container]
) -> None:
    before, objects = bench.state, bench.observed()
    bench.world.events.clear()
    lose(bench)
    removed = [t for who, what in bench.world.events if who == "adapter" for t in what.remove]
    assert removed == []
    assert bench.observed() == objects
    bench.assert_agrees()
    assert bench.state.lease == before.lease
    for known in before.endpoints.values():
        assert replace(bench.state.endpoints[known.id], since=0) == replace(known, since=0)
    for old in before.networks.values():
        assert replace(bench.state.networks[old.id], pool="") == replace(old, pool="")
    assert sum("was taken over from the host" in str(r) for r in bench.core.history.reports) == 1
    assert bench.core.history.last is not None
    assert bench.core.history.last.errors == ()
    again = [docker.start(made.net) for made in lived]
    assert len({made.address for made in [*lived, *again]}) == 4
    for made in [*lived, *again]:
        docker.stop(made)
    for net in {made.net.id: made.net for made in lived}.values():
        docker.remove_network(net)
    bench.assert_clean()


@pytest.mark.parametrize(("kind", "owner"), [("off", "network"), ("docker", "docker")])
def test_the_next_container_tells_who_gives_addresses(
    bench: Bench, docker: Docker, kind: str, owner: str
) -> None:
    net = docker.create_short("off")
    docker.start(net)
    look_inside(bench)
    lose(bench)
    (pool,) = bench.state.pools.values()
    assert pool.owner == "adopted"
    net.kind, net.block = kind, "10.2.0.0/27"
    made = Container(docker.new_id(), net, address="" if kind == "off" else "10.2.0.9/27")
    docker._set_up(made, [], [])
    assert [pool.owner for pool in bench.state.pools.values()] == [owner]
    assert bench.state.endpoints[made.id].ip.ip == IPv4Address(made.address.partition("/")[0])
    assert {hold.pool for hold in bench.state.holds.values()} == set(bench.state.pools)


def test_a_new_network_gets_no_block_of_what_was_taken_over(
    bench: Bench, docker: Docker, lived: list[Container]
) -> None:
    lose(bench)
    taken = {network.gateway.network for network in bench.state.networks.values()}
    new = docker.create_network()
    assert not any(new.block == str(block) for block in taken)
    assert bench.state.networks[lived[0].net.id]


def test_an_older_state_gets_what_came_later(
    bench: Bench, docker: Docker, lived: list[Container]
) -> None:
    old = FakeJournal(bench.world)
    old.rows = dict(bench.journal.rows)
    gone, stays = lived
    docker.stop(gone)
    later = docker.start(stays.net, wanted="")
    newer = docker.start(gone.net, port(80, 8080))
    bench.survey.inside.clear()
    look_inside(bench)
    objects = carried(bench)
    lose(bench, old)
    bench.passes(3)
    assert carried(bench) == objects
    assert set(bench.state.endpoints) == {stays.id, later.id, newer.id}
    bench.assert_agrees()


def test_what_cannot_be_seen_is_left_and_named(
    bench: Bench, docker: Docker, lived: list[Container]
) -> None:
    objects = carried(bench)
    bench.survey.inside.clear()
    lose(bench)
    bench.passes(3)
    assert carried(bench) >= {
        t for t in objects if isinstance(t, Veth | Bridge | LinkAddress | FirewallEntry)
    }
    taken = {str(t.ip.network) for t in objects if isinstance(t, LinkAddress)}
    assert docker.create_network().block not in taken
    for made in lived:
        with pytest.raises(Refused, match="whose address is not known"):
            docker.start(made.net)
    told = bench.core.history.last and bench.core.history.last.errors
    assert told
    assert all("`docker flannel adopt`" in line for line in told)
    for made in lived:
        docker.stop(made)
    bench.passes(1)
    assert not [t for t in bench.observed() if isinstance(t, Veth)]
    assert not [t for t in bench.observed() if isinstance(t, PortMap)]


def test_another_hosts_state_removes_nothing_and_is_named(
    bench: Bench, lived: list[Container]
) -> None:
    objects = carried(bench)
    others = FakeJournal(bench.world)
    (network, *_) = bench.state.networks.values()
    elsewhere = replace(network, id="f" * 64, pool="x", gateway=IPv4Interface("10.2.0.193/26"))
    others.rows = {("network", elsewhere.id): elsewhere}
    lose(bench, others)
    assert objects <= bench.observed()
    assert lived[0].id in bench.state.endpoints
    assert bench.core.history.last is not None
    assert any("another host's" in line for line in bench.core.history.last.errors)


def test_a_lease_that_is_not_known_yet_keeps_everything(
    bench: Bench, lived: list[Container]
) -> None:
    objects, leases = carried(bench), bench.leases
    bench.leases = FakeSource()
    bench.nft.lose(FirewallEntry)  # nothing tells what the lease was
    left = carried(bench)
    lose(bench)
    bench.passes(2)
    assert carried(bench) == left
    assert {t for t in objects if isinstance(t, Veth | Bridge | UnreachableRoute)} <= left
    assert bench.state.endpoints == dict[str, Endpoint]()
    bench.leases = leases
    bench.reboot()
    assert set(bench.state.endpoints) == {made.id for made in lived}
