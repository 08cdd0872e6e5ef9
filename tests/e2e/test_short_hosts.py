"""`driver: flannel` with nothing else on two hosts that have the same 172.x subnet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Network

import pytest

from tests.bed import Host, wait_for
from tests.e2e.helpers import address, asked, container, echoes, enter, gets, inside, web
from tests.e2e.overlay import TCP, UDP, World, empty_world, lease, started
from tests.e2e.short_form import STACK, create, lease_ip, sources

SUBNET = "172.28.0.0/16"
BOUND = """
import socket, sys
target, port, own = sys.argv[1:]
print(socket.create_connection((target, int(port)), 10, (own, 0)).recv(100).decode())
"""
FAR = "10.2.99.9"  # an address of the overlay that is nobody's


def settled(host: Host, name: str, net: str = "app") -> str:
    """Wait until a container uses its lease address, and give it."""
    wait_for(
        lambda: sources(host, name, FAR) == [lease_ip(host, name, net)],
        f"the lease address of {name}",
    )
    return lease_ip(host, name, net)


@pytest.fixture(scope="module")
def pair() -> Iterator[World]:
    """Yield two hosts that each have a network `app` of one subnet, a server and a client."""
    with empty_world("vxlan") as made:
        for name in ("h1", "h2"):
            host = made.add(name)
            create(host, "app", "--subnet", SUBNET)
            web(host, "web", "app", "-p", "8080:80")
            container(host, "client", "app")
            for box in ("web", "client"):
                settled(host, box)
            for kind, port in (("tcp", TCP), ("udp", UDP)):
                echoes(host, "web", kind, port)
        yield made


def test_both_ways_with_the_lease_address_as_source(pair: World) -> None:
    one, two = pair.hosts
    assert address(one, "web", "app") == address(two, "web", "app"), "the same on both"
    for here, there in ((one, two), (two, one)):
        target = lease_ip(there, "web")
        for kind, port in (("tcp", TCP), ("udp", UDP)):
            ask = partial(asked, here, kind, target, port, within="client")
            seen = wait_for(ask, f"{here.name} to reach {there.name}")
            assert seen == lease_ip(here, "client")
        assert asked(here, "tcp", target, TCP), "the host itself"
        assert gets(here, "client", f"http://{target}/") == "web"


def test_names_are_local_and_ports_are_reached_from_everywhere(pair: World) -> None:
    one, two = pair.hosts
    for here, there in ((one, two), (two, one)):
        own = address(here, "web", "app")
        assert f" {own}\n" in inside(here, "client", "nslookup", "web").stdout
        assert asked(here, "tcp", own, TCP, within="client") == address(here, "client", "app")
        url = f"http://{there.address}:8080/"
        assert here.fetch(url).strip() == "web"
        assert gets(here, "client", url) == "web"


def test_nothing_of_dockers_subnet_is_on_the_wire(pair: World) -> None:
    one, two = pair.hosts
    watch = started(one, "capture", "capture", "eth0")
    target = lease_ip(two, "web")
    ip = address(one, "client", "app")
    ask = (*enter(one, "client"), sys.executable, "-c", BOUND, target, str(TCP), ip)
    seen = one.run(*ask).stdout.strip()
    assert seen == str(IPv4Network(lease(one)["subnet"])[0]), "this host's, masqueraded"
    assert asked(one, "tcp", target, TCP, within="client") == lease_ip(one, "client")
    wait_for(lambda: lease_ip(one, "client") in watch.log(), "the packets on the wire")
    watch.kill()
    assert SUBNET.removesuffix(".0.0/16") not in watch.log()


def test_compose_on_both_hosts(pair: World) -> None:
    folders = {}
    for host in pair.hosts:
        folder = folders[host.name] = host.folder / "short"
        folder.mkdir()
        text = STACK.replace("8080:80", "8081:80")
        (folder / "docker-compose.yml").write_text(text)
        host.compose("up", "-d", cwd=folder)
    leases = {h.name: settled(h, "stack_web", "short_default") for h in pair.hosts}
    for here, there in (pair.hosts, pair.hosts[::-1]):
        assert gets(here, "stack_client", "http://web/") == "box", "the own one, by name"
        assert gets(here, "stack_client", f"http://{leases[there.name]}/") == "box"
        assert gets(here, "client", f"http://{leases[here.name]}/") == "", "another network here"
    for host in pair.hosts:
        host.compose("down", cwd=folders[host.name])


def test_docker_publishes_the_ports_itself(pair: World) -> None:
    one, two = pair.hosts
    create(one, "shown", "--subnet", "172.29.0.0/16", "-o", "flannel.publish=docker")
    web(one, "shown", "shown", "-p", "8082:80")
    target = settled(one, "shown", "shown")
    assert "8082" in one.docker("port", "shown").stdout
    assert two.fetch(f"http://{one.address}:8082/").strip() == "shown"
    assert gets(two, "client", f"http://{target}/") == "shown"
    echoes(two, "client", "tcp", TCP)
    ask = partial(asked, one, "tcp", lease_ip(two, "client"), TCP, within="shown")
    assert wait_for(ask, "the other host") == target
    one.docker("rm", "-f", "shown")
    one.docker("network", "rm", "shown")


def test_it_goes_on_when_the_other_host_starts_anew(pair: World) -> None:
    one, two = pair.hosts
    two.docker("restart", "web")
    target = settled(two, "web")
    wait_for(lambda: gets(one, "client", f"http://{target}/") == "web", "the new address")
    one.kill_plugin()
    pair.start_plugin(one)
    assert gets(one, "client", f"http://{target}/") == "web"
