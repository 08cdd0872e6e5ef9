"""What the host does not show is taken over from what Docker knows."""

from __future__ import annotations

from typing import Any

import pytest

from driver.api.adopt import adopt
from driver.api.body import Body
from driver.model.firewall import FirewallEntry
from driver.model.records import short
from tests.unit.bench import Bench
from tests.unit.docker import Container, Docker, Net, Refused, port
from tests.unit.fakes import FakeJournal


def network(net: Net, **options: str) -> dict[str, Any]:
    """Describe a network as Docker's GET /networks does."""
    config = [{"Subnet": net.block, "Gateway": net.gateway.partition("/")[0]}] if net.block else []
    driver = {"flannel": "flannel", "docker": "default", "off": "null"}[net.kind]
    return {
        "Id": net.id,
        "Driver": "flannel",
        "Internal": net.internal,
        "Options": options,
        "IPAM": {"Driver": driver, "Config": config, "Options": None},
    }


def place(made: Container) -> dict[str, Any]:
    return {
        "EndpointID": made.id,
        "Address": made.address,
        "MacAddress": made.mac,
        "Gateway": made.net.gateway.partition("/")[0],
        "Sandbox": f"/var/run/docker/netns/{short(made.id)}",
    }


def lose(bench: Bench) -> None:
    bench.journal = FakeJournal(bench.world)
    bench.reboot()


def test_running_containers_that_nobody_could_look_into(bench: Bench, docker: Docker) -> None:
    net = docker.create_network()
    made = [docker.start(net, port(80, 8080)), docker.start(net)]
    objects = bench.observed()
    bench.nft.lose(FirewallEntry)  # what the host shows is not enough
    lose(bench)
    bench.passes(2)
    assert bench.state.endpoints == {}
    reply = adopt(
        bench.core, Body({"Networks": [network(net)], "Endpoints": [place(one) for one in made]})
    )
    assert reply["Left"] == []
    assert set(reply["Adopted"]) >= {f"endpoint {short(one.id)}" for one in made}
    for one in made:
        assert bench.state.endpoints[one.id].mac == one.mac
    docker.publish(made[0], port(80, 8080))
    assert bench.observed() == objects
    for one in made:
        docker.stop(one)
    docker.remove_network(net)
    bench.assert_clean()


@pytest.mark.parametrize("kind", ["flannel", "docker", "off"])
def test_networks_after_a_reboot_without_the_state(bench: Bench, docker: Docker, kind: str) -> None:
    net = docker.create_network() if kind == "flannel" else docker.create_short(kind)
    for adapter in bench.adapters:
        adapter.objects.clear()
    lose(bench)
    with pytest.raises(Refused, match="`docker flannel adopt` takes over what Docker has"):
        docker.start(net)
    described = network(net)
    if kind == "flannel":
        described["IPAM"]["Config"][0]["AuxiliaryAddresses"] = {"router": "10.2.0.2"}
    reply = adopt(bench.core, Body({"Networks": [described]}))
    assert reply == {"Adopted": [f"network {short(net.id)}"], "Left": []}
    made = docker.start(net)
    assert kind != "flannel" or made.address.partition("/")[0] == "10.2.0.3"
    assert not any(pool.owner == "adopted" for pool in bench.state.pools.values())
    bench.assert_agrees()
    docker.stop(made)
    docker.remove_network(net)
    bench.assert_clean()


def test_what_the_host_did_not_show_is_put_right(bench: Bench, docker: Docker) -> None:
    net = docker.create_network(options={"flannel.publish": "docker"})
    lose(bench)
    assert bench.state.networks[net.id].publish == "flannel"
    asked = {"Networks": [network(net, **{"flannel.publish": "docker"})]}
    assert adopt(bench.core, Body(asked)) == {"Adopted": [], "Left": []}
    assert bench.state.networks[net.id].publish == "docker"
    bench.assert_agrees()


def test_what_cannot_be_taken_over_is_told_and_the_rest_done(bench: Bench, docker: Docker) -> None:
    net = docker.create_network()
    lost = docker.create_network()
    for adapter in bench.adapters:
        adapter.objects.clear()
    lose(bench)
    bad = network(lost)
    bad["IPAM"]["Config"][0]["Subnet"] = "10.99.0.0/24"
    reply = adopt(bench.core, Body({"Networks": [bad, network(net)]}))
    assert reply["Adopted"] == [f"network {short(net.id)}"]
    assert len(reply["Left"]) == 1
    assert "is not inside this host's flannel lease" in reply["Left"][0]
