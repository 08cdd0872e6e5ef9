"""Every way to word a published port, and everyone who may ask it, with packets.

What covers which cell of the matrix; T is test_ports, where all of the first line is:

| from the LAN, the host by address and by localhost, itself, a neighbour, another network | T |
| the address that the container sees in each of those, by tcp and udp | T |
| Docker's bridge, and the other way round | dockers_bridge_and_ours |
| a container on another host, and the address seen | test_overlay |
| one host address; one port on two addresses; the address of the reply | T, one_port_on_two |
| same port with another protocol; several ports of a container | one_number_for_tcp_and_udp |
| range to range, one out of a range, -P, -p 80 | ranges_and_chosen_ports, T |
| sctp | sctp |
| IPv6, unknown address: refused with the reason | what_cannot_be_published, T |
| held by a container, by Docker, by a program; freed at the end | T, a_port_is_free_at_once |
| taken while the plugin was away | test_restart |
| an internal network publishes nothing | an_internal_network |
| bound to 127.0.0.1, and a program's port there, from LAN and container | loopback_is_closed, T |
| not published: LAN, other networks, Docker's bridges | what_is_not_published, test_isolation |
| a client that keeps sending | a_client_that_keeps_sending |
| the gateway moves to another network | a_gateway_that_moves |
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bed import Host, Node, wait_for
from tests.e2e.helpers import (
    asked,
    container,
    echoes,
    enter,
    gets,
    inside,
    network,
    page,
    ports,
    web,
)

ECHO = str(Path(__file__).with_name("echo.py"))
SECOND = "192.0.2.222"


def refusal(host: Host, *options: str) -> str:
    """What Docker says to a container that it cannot start."""
    shown = host.docker("run", "--rm", "--network", "app", *options, "box", "true", check=False)
    assert not shown.ok, f"{options} were taken"
    return shown.stderr


@contextmanager
def second_address(host: Host) -> Iterator[None]:
    """Give the host another address on the LAN."""
    link = host.run("ip", "-o", "addr", "show", "to", host.address).stdout.split()[1]
    host.run("ip", "addr", "add", f"{SECOND}/24", "dev", link)
    try:
        yield
    finally:
        host.run("ip", "addr", "del", f"{SECOND}/24", "dev", link)


@pytest.mark.each_backend
def test_dockers_bridge_and_ours_reach_each_others_ports(host: Host) -> None:
    network(host, "app")
    web(host, "ours", "app", "-p", "8080:80")
    web(host, "plain", "bridge", "-p", "8081:80")
    ours, theirs = (f"http://{host.address}:{port}/" for port in (8080, 8081))
    wait_for(lambda: gets(host, "plain", ours) == "ours", "our port from Docker's bridge")
    wait_for(lambda: gets(host, "ours", theirs) == "plain", "Docker's port from our network")


@pytest.mark.each_backend
def test_one_port_on_two_addresses(host: Host, visitor: Node) -> None:
    with second_address(host):
        network(host, "app")
        web(host, "one", "app", "-p", f"{host.address}:8080:80", "-p", "8053:53/udp")
        web(host, "two", "app", "-p", f"{SECOND}:8080:80")
        echoes(host, "one", "udp", 53)
        wait_for(lambda: page(visitor, 8080, host.address) == "one", "the first")
        wait_for(lambda: page(visitor, 8080, SECOND) == "two", "the second")
        # a client takes an answer from the address it asked alone
        wait_for(lambda: asked(visitor, "udp", SECOND, 8053, 1) == visitor.address, "an answer")
        assert asked(visitor, "udp", host.address, 8053) == visitor.address
        assert "port is already allocated" in refusal(host, "-p", "8080:80")
        host.docker("rm", "-f", "two")
        assert page(visitor, 8080, SECOND) == ""
        assert page(visitor, 8080, host.address) == "one"
        host.docker("rm", "-f", "one")


def test_one_number_for_tcp_and_udp(host: Host, visitor: Node) -> None:
    network(host, "app")
    many = ("-p", "8053:80", "-p", "8054:80", "-p", "8053:53/udp")
    web(host, "web", "app", *many)
    container(host, "other", "app", "-p", "8054:54/udp")
    echoes(host, "web", "udp", 53)
    echoes(host, "other", "udp", 54)
    wait_for(lambda: asked(visitor, "udp", host.address, 8053, 1), "udp")
    wait_for(lambda: asked(visitor, "udp", host.address, 8054, 1), "udp of the other")
    wait_for(lambda: page(visitor, 8053, host.address) == "web", "the first by tcp")
    assert page(visitor, 8054, host.address) == "web"


def test_ranges_and_chosen_ports(host: Host, visitor: Node) -> None:
    network(host, "app")
    web(host, "web", "app", "-p", "9000-9002:79-81", "-p", "80", "--expose", "80", "-P")
    wait_for(lambda: page(visitor, 9001, host.address) == "web", "the one in the middle")
    found = {(p["host_port"], p["container_port"]) for p in ports(host)}
    assert found >= {(9000, 79), (9001, 80), (9002, 81)}
    chosen = [host_port for host_port, port in found if port == 80 and host_port != 9001]
    assert chosen
    assert all(page(visitor, number, host.address) == "web" for number in chosen)


def test_sctp(host: Host) -> None:
    """Where the kernel has no SCTP no packet can be sent, and the firewall's state has to do."""
    network(host, "app")
    container(host, "one", "app", "-p", "9999:99/sctp")
    (port,) = ports(host)
    assert (port["proto"], port["host_port"], port["published"], port["held"]) == (
        "sctp", 9999, True, True,
    )  # fmt: skip
    assert "port is already allocated" in refusal(host, "-p", "9999:99/sctp")
    with pytest.raises(OSError, match="not supported"):  # else: write the test with packets
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)


def test_what_cannot_be_published_is_refused(host: Host) -> None:
    network(host, "app")
    assert "is IPv6, and the network has no IPv6" in refusal(host, "-p", "[::1]:8080:80")
    assert ports(host) == []


def test_a_port_is_free_at_once(host: Host) -> None:
    network(host, "app")
    bind = "import socket; s = socket.socket(); s.bind(('', 8080)); s.listen()"
    for _ in range(3):
        web(host, "web", "app", "-p", "8080:80")
        assert not host.run(sys.executable, "-c", bind, check=False).ok
        host.docker("rm", "-f", "web")
        assert host.run(sys.executable, "-c", bind, check=False).ok
        host.docker("run", "--rm", "-p", "8080:80", "box", "true")


def test_an_internal_network_publishes_nothing(host: Host, visitor: Node) -> None:
    network(host, "inner", "--internal")
    web(host, "web", "inner", "-p", "8080:80")
    assert ports(host) == []
    assert page(visitor, 8080, host.address) == ""


@contextmanager
def asking_for_127(node: Node, via: str, within: tuple[str, ...] = ()) -> Iterator[None]:
    """Have a node, or a container of it, send packets for 127.0.0.1 to the host instead."""
    loose = "for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo {} > $f; done"
    node.run(*within, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    node.run(*within, "sh", "-c", loose.format(1))
    node.run(*within, "ip", "route", "add", "127.0.0.1", "via", via)
    try:
        yield
    finally:
        node.run(*within, "ip", "route", "del", "127.0.0.1", "via", via)
        node.run(*within, "sh", "-c", loose.format(0))
        node.run(*within, "ip", "addr", "add", "127.0.0.1/8", "dev", "lo")


@pytest.mark.each_backend
def test_loopback_is_closed(host: Host, visitor: Node) -> None:
    """CVE-2020-8558, from the LAN and from a container: a published port and a program's."""
    block = network(host, "app")
    web(host, "web", "app", "-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:8053:53/udp")
    container(host, "near", "app")
    echoes(host, "web", "udp", 53)
    serve = ("-m", "http.server", "9999", "--bind", "127.0.0.1", "--directory", "/etc/docker")
    program = host.popen(sys.executable, *serve)
    wait_for(lambda: ":270F" in host.run("cat", "/proc/net/tcp").stdout, "a listener on loopback")
    wait_for(lambda: page(host, 8080, "127.0.0.1") == "web", "the port on the host")
    wait_for(lambda: asked(host, "udp", "127.0.0.1", 8053, 1), "the port on the host, by udp")
    file = "127.0.0.1:9999/daemon.json"
    assert host.reaches(f"http://{file}")
    assert page(visitor, 8080, host.address) == ""
    with asking_for_127(visitor, host.address):
        assert page(visitor, 8080, "127.0.0.1") == ""
        assert asked(visitor, "udp", "127.0.0.1", 8053, 2) == ""
        assert not visitor.reaches(f"http://{file}", 2)
    with asking_for_127(host, str(block[1]), enter(host, "near")):
        assert gets(host, "near", "http://127.0.0.1:8080/") == ""
        assert asked(host, "udp", "127.0.0.1", 8053, 2, within="near") == ""
        assert gets(host, "near", f"http://{file}") == ""
    program.kill()


@pytest.mark.each_backend
def test_what_is_not_published(host: Host, visitor: Node) -> None:
    network(host, "app")
    ip = web(host, "web", "app", "-p", "8080:80")
    container(host, "near", "app")
    network(host, "other")
    container(host, "far", "other")
    container(host, "plain", "bridge")
    echoes(host, "web", "udp", 53)
    wait_for(lambda: asked(host, "udp", ip, 53, 1, within="near"), "the neighbour's answer")
    assert asked(host, "udp", ip, 53, 2), "the host itself"
    for name in ("far", "plain"):
        assert asked(host, "udp", ip, 53, 2, within=name) == "", name
        assert gets(host, name, f"http://{ip}/") == "", name
    visitor.run("ip", "route", "add", "10.2.0.0/16", "via", host.address)
    try:
        assert page(visitor, 80, ip) == "", "nor what is published, by the container's address"
        assert asked(visitor, "udp", ip, 53, 2) == ""
    finally:
        visitor.run("ip", "route", "del", "10.2.0.0/16")


@pytest.mark.each_backend
def test_a_client_that_keeps_sending_follows(host: Host, visitor: Node) -> None:
    network(host, "app")
    container(host, "first", "app")
    container(host, "spare", "app")

    def answer() -> str:
        """Ask from one port, which keeps the flow alive."""
        words = (sys.executable, ECHO, "ask", "udp", host.address, "8053", "1", "7777")
        return visitor.run(*words, check=False).stdout

    assert answer() == ""
    host.docker("rm", "-f", "first")
    for name in ("one", "two"):
        container(host, name, "app", "-p", "8053:53/udp")
        echoes(host, name, "udp", 53)
        wait_for(lambda: answer() == visitor.address, f"an answer of {name}")
        host.docker("rm", "-f", name)
        assert answer() == ""


@pytest.mark.each_backend
def test_a_gateway_that_moves_keeps_the_port(host: Host, visitor: Node) -> None:
    """Docker takes the gateway from the first network by name, and gives it to what is left."""
    network(host, "a")
    network(host, "b")
    web(host, "web", "a", "-p", "8080:80")
    wait_for(lambda: page(visitor, 8080, host.address) == "web", "the port")
    host.docker("network", "connect", "b", "web")
    assert page(visitor, 8080, host.address) == "web"
    for gone, left in (("a", "b"), ("b", "a")):
        host.docker("network", "disconnect", gone, "web")
        (port,) = ports(host)
        assert (port["published"], port["held"]) == (True, True)
        wait_for(lambda: page(visitor, 8080, host.address) == "web", f"the port by {left}")
        host.docker("network", "connect", gone, "web")
        wait_for(lambda: page(visitor, 8080, host.address) == "web", "the port by both")
    assert inside(host, "web", "true").ok
