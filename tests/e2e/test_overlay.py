"""Containers of three hosts over each backend, with real etcd and real dockerd."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

from tests.bed import wait_for
from tests.e2e.helpers import (
    answers,
    asked,
    container,
    echoes,
    enter,
    gets,
    inside,
    network,
    pings,
    status,
    web,
)
from tests.e2e.overlay import (
    CONFIGS,
    DIGEST,
    TCP,
    UDP,
    World,
    lease,
    mac,
    own,
    started,
    tool,
    world,
)

MTU = {"vxlan": 1450, "vni100": 1450, "direct": 1450, "host-gw": 1500}


@pytest.fixture(scope="module", params=list(CONFIGS))
def three(request: pytest.FixtureRequest) -> Iterator[World]:
    """Yield three hosts, with each config in turn."""
    with world(request.param) as made:
        yield made


def test_all_reach_all_and_see_the_real_source(three: World) -> None:
    for one, other in three.pairs():
        target = three.ips[other.name]
        assert pings(one, own(one), target)
        assert gets(one, own(one), f"http://{target}/") == own(other)
    three.all_reach_all("tcp")
    three.all_reach_all("udp")


@pytest.mark.parametrize("three", ["vxlan"], indirect=True)
def test_docker_itself_publishes_where_it_is_told_to(three: World) -> None:
    host, other, _ = three.hosts
    network(host, "shown", "-o", "flannel.publish=docker")
    ip = web(host, "shown", "shown", "-p", "8080:80")
    try:
        assert ":8080->80/tcp" in host.docker("ps", "--filter", "name=shown").stdout
        assert host.docker("port", "shown", "80/tcp").stdout.startswith("0.0.0.0:8080")
        wait_for(lambda: three.etcd.reaches(f"http://{host.address}:8080/"), "the port")
        assert gets(other, own(other), f"http://{ip}/") == "shown", "by its lease address"
        assert gets(host, "shown", f"http://{three.ips[other.name]}/") == own(other)
        echoes(other, own(other), "tcp", 7077)
        wait_for(lambda: asked(host, "tcp", three.ips[other.name], 7077, 1), "an answer")
        seen = asked(host, "tcp", three.ips[other.name], 7077, within="shown")
        assert seen == ip, "its lease address is what others see"
        assert gets(other, own(other), f"http://{host.address}:8080/") == "shown"
        assert all(e["ports"] == [] for e in status(host)["endpoints"]), "none is ours"
        # a second network of the driver takes the gateway's role over, and the ports with it
        host.docker("network", "connect", "app", "shown")
        wait_for(lambda: three.etcd.reaches(f"http://{host.address}:8080/"), "the port, by us")
        assert [e["ports"] for e in status(host)["endpoints"] if e["ports"]] == [
            ["0.0.0.0:8080->80/tcp"]
        ]
        host.docker("network", "disconnect", "app", "shown")
        wait_for(lambda: three.etcd.reaches(f"http://{host.address}:8080/"), "the port again")
    finally:
        host.docker("rm", "-f", "shown")
        host.docker("network", "rm", "shown")


@pytest.mark.parametrize("three", ["vxlan"], indirect=True)
def test_a_published_port_from_a_container_of_another_host(three: World) -> None:
    host, other, _ = three.hosts
    container(host, "server", "app", "-p", "8053:53/udp", "-p", "8054:54")
    try:
        for kind, port in (("udp", 53), ("tcp", 54)):
            echoes(host, "server", kind, port)
            ask = (other, kind, host.address, 8000 + port)
            wait_for(lambda: asked(*ask, 1, own(other)), f"an answer by {kind}")
            assert asked(*ask, within=own(other)) == other.address, "it leaves by its host"
    finally:
        host.docker("rm", "-f", "server")


def test_subnets_and_devices_are_as_configured(three: World) -> None:
    config = CONFIGS[three.config]
    subnets = [IPv4Network(lease(host)["subnet"]) for host in three.hosts]
    assert len(set(subnets)) == 3
    assert sorted(three.keys()) == sorted(three.key(host) for host in three.hosts)
    for host, subnet in zip(three.hosts, subnets, strict=True):
        assert subnet.prefixlen == config.get("SubnetLen", 24)
        assert subnet.subnet_of(IPv4Network(config["Network"]))
        if three.config == "vni100":
            assert 10 <= subnet.network_address.packed[1] <= 99
        assert status(host)["problems"] == []
        assert bool(mac(host, three.device)) == (three.config != "host-gw")


def test_packets_of_the_mtu_pass_and_longer_ones_do_not(three: World) -> None:
    one, other, _ = three.hosts
    assert lease(one)["mtu"] == MTU[three.config]
    server = started(other, "digest", "digest", str(DIGEST), within=own(other))
    ask = ("datagram", three.ips[other.name], str(DIGEST))
    whole = MTU[three.config] - 28  # headers of IPv4 and UDP
    wait_for(lambda: tool(one, *ask, str(whole), "df", within=own(one)) == "whole", "an answer")
    refused = tool(one, *ask, str(whole + 1), "df", within=own(one))
    assert "Message too long" in refused
    # what a container with a larger MTU sends is refused on the way
    network(one, "wide", "-o", "com.docker.network.driver.mtu=1600")
    container(one, "wide", "wide")
    assert tool(one, *ask, str(whole), "df", within="wide") == "whole"
    refused = tool(one, *ask, str(whole + 1), "df", within="wide")
    assert "Message too long" in refused
    server.kill()


def test_what_is_sent_arrives_whole(three: World) -> None:
    one, other, _ = three.hosts
    server = started(other, "digest", "digest", str(DIGEST), within=own(other))
    target = (three.ips[other.name], str(DIGEST))
    sent = tool(one, "stream", *target, "100", within=own(one), limit_s=120)
    print(f"100 MiB over {three.config}: {sent}")  # noqa: T201 - for who reads the log
    assert sent.startswith("whole")
    for size in (1, 1400, 9000, 60000):
        assert tool(one, "datagram", *target, str(size), within=own(one)) == "whole", size
    server.kill()


def test_what_goes_over_the_wire(three: World) -> None:
    one, other, _ = three.hosts
    watch = started(one, "capture", "capture", "eth0")
    source, target = three.ips[one.name], three.ips[other.name]
    assert asked(one, "tcp", target, TCP, within=own(one)) == source
    plain = (f"plain {source} {target}\n", f"plain {target} {source}\n")
    vni = {"vxlan": 1, "vni100": 100}.get(three.config)
    there, back = f"{one.address} {other.address}", f"{other.address} {one.address}"
    wrapped = (
        f"vxlan {vni} {there} {source} {target}\n",
        f"vxlan {vni} {back} {target} {source}\n",
    )
    seen = wrapped if vni else plain
    wait_for(lambda: all(line in watch.log() for line in seen), "the packets on the wire")
    watch.kill()
    others = "plain 10." if vni else "vxlan"
    assert not [line for line in watch.log().splitlines() if line.startswith(others)]


def test_a_published_port(three: World) -> None:
    one, other, third = three.hosts
    web(other, "published", "app", "-p", "8080:80")
    url = f"http://{other.address}:8080/"
    wait_for(lambda: one.reaches(url), "the port")
    assert one.fetch(url).strip() == "published"
    assert gets(one, own(one), url) == "published"
    assert gets(third, own(third), url) == "published"
    assert gets(other, own(other), url) == "published"


def test_networks_of_one_host_stay_apart(three: World) -> None:
    one, other, _ = three.hosts
    network(one, "other")
    apart = web(one, "apart", "other")
    assert gets(one, "apart", f"http://{three.ips[other.name]}/") == own(other)
    assert gets(other, own(other), f"http://{apart}/") == "apart"
    assert pings(other, own(other), apart)
    assert not answers(one, own(one), apart)
    assert not answers(one, "apart", three.ips[one.name])
    assert not asked(one, "tcp", apart, 80, 1, within=own(one))
    assert not asked(one, "tcp", three.ips[one.name], TCP, 1, within="apart")


def test_an_internal_network_has_no_way_out_and_none_in(three: World) -> None:
    one, other, _ = three.hosts
    inner = network(one, "inner", "--internal")
    kept = container(one, "kept", "inner")
    container(one, "beside", "inner")
    outside = three.bed.outside.address
    assert pings(one, "kept", "beside")
    assert "default" not in inside(one, "kept", "ip", "route").stdout
    assert not answers(one, "kept", outside)
    # nor with a route it gives itself
    into = enter(one, "kept")
    one.run(*into, "ip", "route", "add", "default", "via", str(inner[1]))
    for target in (outside, other.address, three.ips[one.name], three.ips[other.name]):
        assert not answers(one, "kept", target), target
    assert pings(one, own(one), outside)
    # other hosts and their containers, which its own host reaches it beside
    echo = echoes(one, "kept", "udp", UDP)
    wait_for(lambda: asked(one, "udp", kept, UDP), "the internal network's server")
    assert not answers(other, own(other), kept)
    for within in ("", own(other)):
        assert not asked(other, "udp", kept, UDP, 1, within=within)
    echo.stop()


def test_strangers_do_not_reach_containers(three: World) -> None:
    one, stranger = three.hosts[0], three.etcd
    subnet = str(lease(one)["subnet"])
    stranger.run("ip", "route", "add", subnet, "via", one.address)
    assert not asked(stranger, "tcp", three.ips[one.name], TCP, 1)
    stranger.run("ip", "route", "del", subnet)


def test_hosts_reach_containers(three: World) -> None:
    one, other, _ = three.hosts
    assert asked(one, "tcp", three.ips[one.name], TCP)
    assert asked(other, "tcp", three.ips[one.name], TCP)
    assert asked(other, "udp", three.ips[one.name], UDP)
