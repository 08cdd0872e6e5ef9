"""Published ports, from everywhere they may be asked, with packets."""

from __future__ import annotations

import re

import pytest

from tests.bed import Host, Node, wait_for
from tests.e2e.helpers import asked, container, echoes, gets, inside, network, web


@pytest.mark.each_backend
def test_tcp_from_everywhere(host: Host, visitor: Node) -> None:
    network(host, "app")
    network(host, "other")
    ip = web(host, "web", "app", "-p", "8080:80")
    container(host, "near", "app")
    container(host, "far", "other")
    outside = f"http://{host.address}:8080/"
    wait_for(lambda: visitor.reaches(outside), "the port from another machine")
    assert visitor.fetch(outside).strip() == "web"
    assert host.fetch(outside).strip() == "web"
    assert host.fetch("http://127.0.0.1:8080/").strip() == "web"
    assert host.fetch("http://localhost:8080/").strip() == "web"
    assert gets(host, "web", outside) == "web", "hairpin"
    assert gets(host, "near", outside) == "web"
    assert gets(host, "far", outside) == "web"
    # what is not published stays closed, also by the container's own address
    visitor.run("ip", "route", "add", "10.2.0.0/16", "via", host.address)
    try:
        assert not visitor.reaches(f"http://{ip}/", 3)
    finally:
        visitor.run("ip", "route", "del", "10.2.0.0/16")
    host.docker("rm", "-f", "web")
    assert not visitor.reaches(outside, 3)


@pytest.mark.each_backend
def test_udp_from_everywhere_and_the_addresses_seen(host: Host, visitor: Node) -> None:
    for_all_clients(host, visitor, "udp")


@pytest.mark.each_backend
def test_the_addresses_seen_over_tcp(host: Host, visitor: Node) -> None:
    for_all_clients(host, visitor, "tcp")


def for_all_clients(host: Host, visitor: Node, kind: str) -> None:
    """Ask a published port from all sides, and check what the container sees of the client."""
    block = network(host, "app")
    container(host, "server", "app", "-p", f"8053:53/{kind}")
    near = container(host, "near", "app")
    network(host, "other")
    far = container(host, "far", "other")
    echoes(host, "server", kind, 53)
    gateway = str(block[1])
    wait_for(lambda: asked(visitor, kind, host.address, 8053, 1), "an answer")
    assert asked(visitor, kind, host.address, 8053) == visitor.address
    assert asked(host, kind, host.address, 8053) == host.address
    assert asked(host, kind, "127.0.0.1", 8053) == gateway
    assert asked(host, kind, host.address, 8053, within="server") == gateway, "hairpin"
    assert asked(host, kind, host.address, 8053, within="near") == gateway, near
    assert asked(host, kind, host.address, 8053, within="far") == far


@pytest.mark.each_backend
def test_one_host_address(host: Host, visitor: Node) -> None:
    network(host, "app")
    web(host, "local", "app", "-p", "127.0.0.1:8080:80")
    web(host, "lan", "app", "-p", f"{host.address}:8080:80")
    wait_for(lambda: host.reaches("http://127.0.0.1:8080/"), "the local port")
    assert host.fetch("http://127.0.0.1:8080/").strip() == "local"
    assert visitor.fetch(f"http://{host.address}:8080/").strip() == "lan"
    host.docker("rm", "-f", "lan")
    assert not visitor.reaches(f"http://{host.address}:8080/", 3), "127.0.0.1 is not the LAN"
    refused = host.docker(
        "run", "--rm", "--network", "app", "-p", "203.0.113.9:80:80", "box", "true", check=False
    )
    assert "host address 203.0.113.9 is not an address of this host" in refused.stderr


def test_a_taken_port_is_refused_in_the_words_people_know(host: Host) -> None:
    network(host, "app")
    web(host, "first", "app", "-p", "8080:80")
    words = "Bind for 0.0.0.0:8080 failed: port is already allocated"

    def refusal(*options: str) -> str:
        return host.docker("run", "--rm", *options, "box", "true", check=False).stderr

    mine = refusal("--network", "app", "-p", "8080:80")
    assert f"{words}, for tcp by endpoint " in mine, "by a container of ours"
    wait_for(
        lambda: " (container first)" in refusal("--network", "app", "-p", "8080:80"),
        "the plugin to know the container's name",
    )
    assert "port is already allocated" in refusal("--network", "app", "-p", "127.0.0.1:8080:80")
    assert "8080" in refusal("-p", "8080:80"), "Docker's own bridge sees our socket"
    host.docker("rm", "-f", "first")
    host.docker("run", "-d", "--name", "second", "-p", "8080:80", "box", "sleep", "1000")
    theirs = refusal("--network", "app", "-p", "8080:80")
    [look] = re.findall(f"{words}, .* `docker (.*)` if", theirs)
    assert " second\n" in host.docker(*look.split()).stdout, "by Docker's own bridge"
    host.docker("rm", "-f", "second")
    other = host.serve("something else", 8080)
    [found] = re.findall(
        f"{words}, for tcp by another program; `([^`]*)` shows which",
        refusal("--network", "app", "-p", "8080:80"),
    )
    assert "busybox" in host.run(*found.split()).stdout
    other.kill()
    wait_for(lambda: refusal("--network", "app", "-p", "8080:80") == "", "the port to be free")


def test_a_port_out_of_a_range_and_any_port(host: Host) -> None:
    network(host, "app")
    web(host, "one", "app", "-p", "8080-8081:80", "-p", "443")
    web(host, "two", "app", "-p", "8080-8081:80")
    wait_for(lambda: host.reaches("http://127.0.0.1:8081/"), "the second of the range")
    names = {host.fetch(f"http://127.0.0.1:{port}/").strip() for port in (8080, 8081)}
    assert names == {"one", "two"}
    refused = host.docker(
        "run", "--rm", "--network", "app", "-p", "8080-8081:80", "box", "true", check=False
    )
    assert "no free host port for container port 80/tcp: all of 8080-8081" in refused.stderr
    endpoints = host.run(
        "curl", "-s", "--unix-socket", "/run/docker/plugins/flannel.sock", "http://x/status"
    )
    assert "->443/tcp" in endpoints.stdout


@pytest.mark.each_backend
def test_containers_do_not_reach_the_hosts_loopback(host: Host) -> None:
    network(host, "app")
    container(
        host,
        "one",
        "app",
        "--cap-add",
        "NET_ADMIN",
        "--sysctl",
        "net.ipv4.conf.all.route_localnet=1",
    )
    listener = host.popen(
        "busybox", "httpd", "-f", "-p", "127.0.0.1:9999", "-h", "/", log_name="httpd"
    )
    wait_for(lambda: ":270F" in host.run("cat", "/proc/net/tcp").stdout, "a listener on loopback")
    inside(host, "one", "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    gateway = inside(
        host, "one", "sh", "-c", "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'"
    )
    inside(host, "one", "ip", "route", "add", "127.0.0.1", "via", gateway.stdout.strip())
    assert gets(host, "one", "http://127.0.0.1:9999/daemon.json") == ""
    listener.kill()
