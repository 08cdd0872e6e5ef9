"""Docker set up for `-d flannel` with nothing else: by daemon.json, one way or the other."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Bed, Host, Result, wait_for
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
from tests.e2e.overlay import World, empty_world, lease

NEW = 28  # the first Docker that knows of IPv4 off
FILE = "/etc/docker/daemon.json"
STACK = """\
services:
  web:
    image: box
    container_name: {name}
    command: httpd -f -p 80 -h /www
    ports: ["8080:80"]
  client:
    image: box
    container_name: {name}_client
    command: sleep infinity
networks:
  default:
    driver: flannel
"""


def command(host: Host, *words: str, check: bool = True) -> Result:
    """Run docker-flannel on a host."""
    return host.run(sys.executable, "-m", "driver", *words, cwd=PROJECT, check=check)


def settings(host: Host) -> Any:
    return json.loads(host.path(FILE).read_text())


def stack(host: Host, name: str) -> Path:
    folder = host.folder / name
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(
        ('version: "3.5"\n' if docker_major(host) < NEW else "") + STACK.format(name=name)
    )
    return folder


# --- setup-daemon ---


@pytest.fixture(scope="module")
def pair() -> Iterator[World]:
    """Give two hosts with one etcd, the plugin and a Docker that knows nothing of flannel."""
    with empty_world("vxlan") as made:
        for name in ("h1", "h2"):
            host = made.host(name)
            made.start_plugin(host)
            host.start_dockerd()
            host.load_image()
            wait_for(lambda host=host: lease(host), f"the lease of {name}")
        yield made


def test_the_file_is_written_for_dockers_that_know_it(pair: World) -> None:
    for host in pair.hosts:
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
        host.restart_dockerd()


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


def test_docker_gives_the_drivers_address(pair: World) -> None:
    """Docker's own words name the lease address, names lead to it, other hosts reach it."""
    for host in pair.hosts:
        if docker_major(host) < NEW:
            return  # such a Docker is left as it is, seen above
        host.docker("network", "create", "-d", "flannel", "plain")
        assert inspect(host, "network", "plain")["EnableIPv4"] is False
        own = IPv4Network(lease(host)["subnet"])
        ip = web(host, f"web-{host.name}", "plain", "-p", "8080:80")
        near = container(host, f"near-{host.name}", "plain")
        assert {IPv4Address(ip), IPv4Address(near)} <= set(own)
        assert gets(host, f"near-{host.name}", f"http://web-{host.name}/") == f"web-{host.name}"
        assert (
            f" {ip}\n" in inside(host, f"near-{host.name}", "nslookup", f"web-{host.name}").stdout
        )
        shown = inside(host, f"web-{host.name}", "ip", "-o", "-4", "addr").stdout.splitlines()
        assert len(shown) == 2, "lo and that one"
        assert f" {ip}/" in shown[1]
        other = next(h for h in pair.hosts if h is not host)
        assert other.fetch(f"http://{host.address}:8080/").strip() == f"web-{host.name}"
        echoes(host, f"web-{host.name}", "tcp", 7001)
    one, two = pair.hosts
    for here, there in ((one, two), (two, one)):
        target = address(there, f"web-{there.name}", "plain")
        seen = wait_for(
            lambda here=here, target=target: asked(
                here, "tcp", target, 7001, within=f"near-{here.name}"
            ),
            f"{here.name} to reach {there.name}",
        )
        assert seen == address(here, f"near-{here.name}", "plain")
    for host in pair.hosts:
        host.docker("rm", "-f", f"web-{host.name}", f"near-{host.name}")
        host.docker("network", "rm", "plain")


def test_compose_with_only_the_driver(pair: World) -> None:
    host = pair.hosts[0]
    if docker_major(host) < NEW:
        return  # such a Docker is left as it is, seen above
    folder = stack(host, "shop")
    for _ in range(3):
        host.compose("up", "-d", cwd=folder)
        ip = address(host, "shop", "shop_default")
        assert IPv4Address(ip) in IPv4Network(lease(host)["subnet"])
        wait_for(lambda: gets(host, "shop_client", "http://web/") == "box", "the name `web`")
        assert host.fetch("http://127.0.0.1:8080/").strip() == "box"
        assert pair.hosts[1].fetch(f"http://{host.address}:8080/").strip() == "box"
        assert pings(host, "shop_client", ip)
        host.compose("down", cwd=folder)


# --- docker-opts ---


@pytest.fixture
def alone(bed: Bed) -> Iterator[Host]:
    """Give a host with the plugin and no dockerd yet."""
    host = bed.host(f"a{len(bed.nodes)}")
    host.start_plugin({"DOCKER_FLANNEL_LOG_LEVEL": "debug"})
    yield host
    host.power_off()


def parts(host: Host) -> tuple[dict[str, Any], dict[str, str]]:
    """Give what docker-opts shows: daemon.json's settings, and the options by name."""
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
    assert "has no free block" in refused.stderr
