"""What went wrong once: a failure told only for a while, and calls that do not fit together."""

from __future__ import annotations

import pytest

from driver.core.contention import MANY
from driver.errors import HostError
from driver.model.firewall import Ruleset
from tests.unit.bench import Bench
from tests.unit.docker import Container, Docker, Net, Refused, port


@pytest.mark.usefixtures("made")
def test_what_fails_for_good_is_told_for_good(bench: Bench) -> None:
    bench.nft.refuse = lambda item: HostError("no tables") if isinstance(item, Ruleset) else None
    bench.nft.lose(Ruleset)
    assert all(report.errors for report in bench.passes(MANY + 3))


def test_a_gateway_with_another_length_than_the_pools_is_refused(bench: Bench) -> None:
    bench.call("IpamDriver.RequestPool", Pool="10.2.0.0/27")
    net = Net("e" * 64, block="10.2.0.0/27", gateway="10.2.0.1/24")
    with pytest.raises(Refused, match=r"10\.2\.0\.1/24"):
        Docker(bench).send_create(net, {})
    assert not bench.state.networks


def test_an_endpoint_cannot_be_joined_on_another_network(
    bench: Bench, docker: Docker, made: Container
) -> None:
    other = docker.create_network()
    made.net.containers.clear()
    body = {"NetworkID": other.id, "EndpointID": made.id, "SandboxKey": "/other"}
    docker.quietly("NetworkDriver.Join", **body)
    assert bench.state.endpoints[made.id].sandbox != "/other"


def test_two_ranges_share_what_a_program_leaves_of_them(bench: Bench, docker: Docker) -> None:
    bench.ports.taken = {8001}
    made = docker.start(docker.create_network())
    for _ in range(20):
        docker.publish(made, port(80, 8000, 8002), port(81, 8000, 8002))
        assert {p.host_port for p in bench.state.endpoints[made.id].ports} == {8000, 8002}


def test_a_block_is_not_given_away_while_a_network_still_has_it(
    bench: Bench, docker: Docker
) -> None:
    net = docker.create_network("10.2.0.0/24")  # all of the lease
    docker.quietly("IpamDriver.ReleasePool", PoolID=net.pool)
    with pytest.raises(Refused):
        docker.create_network()
    assert set(bench.state.networks) == {net.id}
