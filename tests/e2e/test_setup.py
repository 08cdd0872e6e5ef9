"""Docker set up for `-d flannel` with nothing else: by daemon.json, one way or the other."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.bed import Bed, Host, Result, assert_no_leaks, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import (
    LEASE,
    address,
    asked,
    container,
    docker_major,
    echoes,
    gets,
    in_lease,
    inside,
    inspect,
    pings,
    web,
)
from tests.e2e.leaving import MAY_DIFFER, baseline, tidy
from tests.e2e.overlay import World, empty_world, lease

NEW = 28  # the first Docker that knows of IPv4 off
FILE = "/etc/docker/daemon.json"
BRIDGE = "docker: network *"  # Docker's own gets a new id when dockerd starts
STACK = """\
services:
  web:
    image: box
    container_name: shop_web
    command: httpd -f -p 80 -h /www
    ports: ["8080:80"]
  client:
    image: box
    container_name: shop_client
    command: sleep infinity
networks:
  default:
    driver: flannel
"""
OLD_STACK = f'version: "3.5"\n{STACK}    ipam: {{driver: flannel}}\n'


def command(host: Host, *words: str, check: bool = True) -> Result:
    """Run docker-flannel on a host."""
    return host.run(sys.executable, "-m", "driver", *words, cwd=PROJECT, check=check)


def settings(host: Host) -> Any:
    return json.loads(host.path(FILE).read_text())


# --- setup-daemon ---


@pytest.fixture(scope="module")
def pair() -> Iterator[World]:
    """Yield two hosts with one etcd, the plugin and a Docker that knows nothing of flannel."""
    with empty_world("vxlan") as made:
        for name in ("h1", "h2"):
            made.add(name)
        yield made


@pytest.fixture(scope="module")
def ready(pair: World) -> World:
    """Return those hosts, set up by `setup-daemon --write` where Docker knows the setting."""
    for host in pair.hosts:
        command(host, "setup-daemon", "--write", check=docker_major(host) >= NEW)
        host.restart_dockerd()
        # what the first network makes and no later one: tables that iptables instantiates, and such
        host.docker("network", "create", "-d", "flannel", "--ipam-driver", "flannel", "first")
        host.docker("run", "--rm", "--network", "first", "-p", "7:7", "box", "true")
        host.docker("network", "rm", "first")
    return pair


@pytest.fixture
def two(ready: World) -> Iterator[tuple[Host, Host]]:
    """Yield the hosts; the test has to leave them as they were."""
    one, other = ready.hosts
    before = [baseline(host) for host in (one, other)]
    yield one, other
    for host, was in zip((one, other), before, strict=True):
        tidy(host)
        assert_no_leaks(host, was, ignore=(*MAY_DIFFER, BRIDGE))


def own(host: Host) -> IPv4Network:
    return IPv4Network(lease(host)["subnet"])


def plain(host: Host, *options: str) -> str:
    """Make a network with no word about addresses, a web server and a neighbour there.

    Older Dockers need that word. Gives the server's address, which is one of the lease.
    """
    ipam = () if docker_major(host) >= NEW else ("--ipam-driver", "flannel")
    host.docker("network", "create", "-d", "flannel", *ipam, "plain")
    ip = web(host, f"web-{host.name}", "plain", "-p", "8080:80", *options)
    near = container(host, f"near-{host.name}", "plain", *options)
    assert {IPv4Address(ip), IPv4Address(near)} <= set(own(host))
    return ip


def works(host: Host, other: Host) -> None:
    """Name, port and the only address of a web server are right."""
    name, near = f"web-{host.name}", f"near-{host.name}"
    ip = address(host, name, "plain")
    assert IPv4Address(ip) in own(host)
    wait_for(lambda: gets(host, near, f"http://{name}/") == name, f"{name} by its name")
    assert f" {ip}\n" in inside(host, near, "nslookup", name).stdout
    lo, eth0 = inside(host, name, "ip", "-o", "-4", "addr").stdout.splitlines()
    assert " 127.0.0.1/8 " in lo
    assert f" {ip}/" in eth0
    assert other.fetch(f"http://{host.address}:8080/").strip() == name


def test_the_file_is_written_for_dockers_that_know_it(pair: World) -> None:
    host = pair.hosts[0]
    before = settings(host)
    done = command(host, "setup-daemon", "--write", check=False)
    if docker_major(host) < NEW:
        assert not done.ok
        assert "does not understand the setting, 28 and later do" in done.stderr
        assert settings(host) == before
    else:
        assert done.ok, done.stderr
        shown = json.loads(command(host, "setup-daemon").stdout)
        assert settings(host) == {**before, **shown}
        [backup] = host.path(FILE).parent.glob("daemon.json.*.bak")
        assert json.loads(backup.read_text()) == before
        again = command(host, "setup-daemon", "--write").stdout
        assert "nothing was changed" in again


def test_a_file_that_dockerd_refuses(pair: World) -> None:
    host = pair.hosts[0]
    file = host.folder / "bad.json"
    file.write_text('{"no-such-setting": 1}')
    done = command(host, "setup-daemon", "--write", "--file", str(file), check=False)
    assert not done.ok
    assert done.stderr.count("\n") == 1
    words = "no-such-setting" if docker_major(host) >= NEW else "does not understand"
    assert words in done.stderr
    assert file.read_text() == '{"no-such-setting": 1}'
    assert not list(file.parent.glob(".bad.json*"))


def test_docker_gives_the_drivers_address(two: tuple[Host, Host]) -> None:
    for host, other in (two, two[::-1]):
        plain(host)
        works(host, other)
        echoes(host, f"web-{host.name}", "tcp", 7001)
        shown = inspect(host, "network", "plain")
        assert shown.get("EnableIPv4", False) is False
    for here, there in (two, two[::-1]):
        target = address(there, f"web-{there.name}", "plain")
        question = partial(asked, here, "tcp", target, 7001, within=f"near-{here.name}")
        seen = wait_for(question, f"{here.name} to reach {there.name}")
        assert seen == address(here, f"near-{here.name}", "plain")


def test_containers_start_again(ready: World, two: tuple[Host, Host]) -> None:
    host = two[0]
    plain(host, "--restart", "always")
    host.docker("restart", f"web-{host.name}")
    works(*two)
    for end in (host.stop_dockerd, host.kill_dockerd):
        end()
        host.restart_dockerd()
        wait_for(lambda: len(host.docker("ps", "-q").stdout.split()) == 2, "the containers")
        works(*two)
    host.kill_plugin()
    ready.start_plugin(host)
    works(*two)


def test_who_says_more_gets_it(two: tuple[Host, Host]) -> None:
    host = two[0]
    host.docker("network", "create", "-d", "flannel", "--ipam-driver", "flannel", "long")
    assert IPv4Address(container(host, "one", "long")) in own(host)
    block = list(own(host).subnets(new_prefix=28))[-1]
    ipv4 = ["--ipv4"] if docker_major(host) >= NEW else []
    host.docker("network", "create", "-d", "flannel", *ipv4, "--subnet", str(block), "chosen")
    assert IPv4Address(container(host, "two", "chosen")) in block
    assert not pings(host, "one", address(host, "two", "chosen"))


def test_compose(two: tuple[Host, Host]) -> None:
    host, other = two
    folder = host.folder / "shop"
    folder.mkdir()
    text = STACK if docker_major(host) >= NEW else OLD_STACK
    (folder / "docker-compose.yml").write_text(text)
    for _ in range(3):
        host.compose("up", "-d", cwd=folder)
        assert IPv4Address(address(host, "shop_web", "shop_default")) in own(host)
        wait_for(lambda: gets(host, "shop_client", "http://web/") == "box", "the name `web`")
        assert host.fetch("http://127.0.0.1:8080/").strip() == "box"
        assert other.fetch(f"http://{host.address}:8080/").strip() == "box"
        host.compose("down", cwd=folder)


# --- docker-opts ---


@pytest.fixture
def alone(bed: Bed) -> Iterator[Host]:
    """Yield a host with the plugin and no dockerd yet."""
    host = bed.host(f"a{len(bed.nodes)}")
    host.start_plugin({"DOCKER_FLANNEL_LOG_LEVEL": "debug"})
    yield host
    host.power_off()


def parts(host: Host) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what docker-opts shows: daemon.json's settings, and the options by name."""
    text = command(host, "docker-opts").stdout
    end = text.index("\n}\n") + 2
    line = next(line for line in text.splitlines() if line.startswith("--"))
    options = dict(word.removeprefix("--").split("=") for word in line.split())
    return json.loads(text[text.index("{") : end]), options


def test_pools_of_the_lease(alone: Host) -> None:
    shown, _ = parts(alone)
    alone.start_dockerd(**shown)
    alone.load_image()
    blocks = []
    for name, driver in (("one", "flannel"), ("two", "bridge"), ("three", "flannel")):
        alone.docker("network", "create", "-d", driver, name)
        [config] = inspect(alone, "network", name)["IPAM"]["Config"]
        blocks.append(IPv4Network(config["Subnet"]))
    ipam = ("-d", "flannel", "--ipam-driver", "flannel")
    alone.docker("network", "create", *ipam, "four")
    blocks.append(IPv4Network(inspect(alone, "network", "four")["IPAM"]["Config"][0]["Subnet"]))
    assert all(block.subnet_of(LEASE) and block.prefixlen == 26 for block in blocks)
    assert len(set(blocks)) == len(blocks)
    ip = web(alone, "web", "one", "-p", "8080:80")
    assert IPv4Address(ip) in blocks[0], "as it is, no other address beside it"
    container(alone, "near", "one")
    assert len(inside(alone, "near", "ip", "-o", "-4", "addr").stdout.splitlines()) == 2
    assert gets(alone, "near", "http://web/") == "web"
    assert alone.fetch("http://127.0.0.1:8080/").strip() == "web"
    assert not in_lease(inspect(alone, "network", "bridge")["IPAM"]["Config"][0]["Subnet"][:-3])


def test_all_containers_on_docker0(alone: Host) -> None:
    _, options = parts(alone)
    words: dict[str, Any] = dict(options)
    words["mtu"], words["ip-masq"] = int(words["mtu"]), words["ip-masq"] == "true"
    alone.start_dockerd(**words)
    alone.load_image()
    alone.docker("run", "-d", "--name", "one", "box", "sleep", "1000")
    ip = inspect(alone, "container", "one")["NetworkSettings"]["IPAddress"]
    assert in_lease(ip)
    refused = alone.docker(
        "network", "create", "-d", "flannel", "--ipam-driver", "flannel", "app", check=False
    )
    assert "(on docker0)" in refused.stderr
    assert "`docker-flannel migrate` shows how to move it" in refused.stderr
