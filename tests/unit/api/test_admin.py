"""What an administrator may ask for beyond Docker's calls."""

from __future__ import annotations

import pytest

from driver.api.admin import SHORTEST, forget
from driver.api.body import Body
from driver.errors import BadRequest, Conflict, UnknownObject
from tests.unit.bench import Bench
from tests.unit.docker import Container, Docker


def test_a_network_that_docker_gave_up_unheard_is_forgotten(bench: Bench, docker: Docker) -> None:
    net = docker.create_network()
    told = forget(bench.core, Body({"What": net.id[:12]}))
    assert told == {"Forgotten": f"{net.id[:12]}, block {net.block}"}
    bench.assert_clean()
    bench.assert_agrees()


def test_a_block_is_forgotten_with_or_without_a_network(bench: Bench, docker: Docker) -> None:
    net = docker.create_network()
    bench.call("IpamDriver.RequestPool", Pool="10.2.0.64/27")
    for block in (net.block, "10.2.0.64/27"):
        assert str(block) in forget(bench.core, Body({"What": str(block)}))["Forgotten"]
    bench.assert_clean()


def test_a_network_with_containers_is_kept(bench: Bench, made: Container) -> None:
    before = bench.state
    with pytest.raises(Conflict, match="has 1 containers; disconnect them first"):
        forget(bench.core, Body({"What": made.net.id}))
    assert bench.state == before


@pytest.mark.parametrize("what", ["", "abc", "ffff", "10.2.0.0", "10.9.0.0/24", "x" * 300])
def test_what_is_not_there_is_not_forgotten(bench: Bench, docker: Docker, what: str) -> None:
    docker.create_network()
    before = bench.state
    with pytest.raises((UnknownObject, BadRequest)):
        forget(bench.core, Body({"What": what}))
    assert bench.state == before


def test_a_beginning_that_two_networks_share_is_refused(bench: Bench, docker: Docker) -> None:
    one, two = docker.create_network(), docker.create_network()
    shared = one.id[:SHORTEST]
    assert two.id.startswith(shared)
    with pytest.raises(UnknownObject, match="neither a block nor the first 4 or more characters"):
        forget(bench.core, Body({"What": shared}))
