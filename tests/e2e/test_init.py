"""`init` on one host and `join` on others, with Debian's etcd as `init` sets it up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Host, Result, wait_for
from tests.e2e.helpers import network, pings, status, web
from tests.e2e.leaving import tidy
from tests.e2e.members import (
    FOLDER,
    LEASES,
    SETTINGS,
    UNIT,
    etcdctl,
    flannel,
    leases,
    machine,
    meet,
    refused,
    subnet,
    token,
)

FEW_S = 60.0


class World:
    """Three hosts of one network, and its token."""

    def __init__(self, bed: Bed) -> None:
        self.hosts = [machine(bed, f"h{n}") for n in (1, 2, 3)]
        first, *others = self.hosts
        self.first = flannel(first, "init")
        self.token = token(self.first)
        self.joined = [
            flannel(others[0], "join", self.token),
            flannel(others[1], "join", "-", given=f"{self.token}\n"),
        ]
        meet(*self.hosts)


@pytest.fixture(scope="module")
def made(bed: Bed) -> World:
    """Return the hosts."""
    return World(bed)


@pytest.fixture
def world(made: World) -> Iterator[World]:
    """Yield them; a test leaves them all in the network, and without networks of Docker's."""
    yield made
    for host in made.hosts:
        tidy(host)
        again(made, host)
    meet(*made.hosts)


def again(world: World, host: Host) -> Result:
    """Repeat what made a host one of the network."""
    if host is world.hosts[0]:
        return flannel(host, "init")
    return flannel(host, "join", "-", given=world.token)


def test_two_commands_make_a_network(world: World) -> None:
    assert world.first.seconds < FEW_S
    assert all(result.seconds < FEW_S for result in world.joined)
    one, two, three = map(subnet, world.hosts)
    assert len({one, two, three}) == 3
    assert f"this host has {two} of 10.2.0.0/16" in world.joined[0].stdout
    assert f"peer {one} at {world.hosts[0].address}" in world.joined[0].stdout
    assert "/21 for each host" in world.first.stdout
    ips = []
    for n, host in enumerate(world.hosts):
        network(host, "app")
        ips.append(web(host, f"w{n}", "app"))
    for n, host in enumerate(world.hosts):
        for ip in ips:
            assert pings(host, f"w{n}", ip), (host.name, ip)


def test_an_etcd_that_only_the_hosts_can_use(world: World, bed: Bed) -> None:
    first = world.hosts[0]
    listens = first.run("ss", "-Hltn").stdout
    at = {
        re.sub(r".* (\S+):(2379|2380) .*", r"\1:\2", x) for x in listens.splitlines() if ":23" in x
    }
    assert at == {f"{first.address}:2379", "127.0.0.1:2380"}
    modes = first.run(
        "stat", "-c", "%a %U %n", FOLDER, *(FOLDER / n for n in ("ca.key", "etcd.env"))
    )
    assert [x.split()[:2] for x in modes.stdout.splitlines()] == [
        ["700", "root"],
        *[["600", "root"]] * 2,
    ]
    assert first.run("ps", "-o", "user=", "-C", "etcd").stdout.split() == ["etcd"]
    for host in world.hosts[1:]:
        assert set(host.run("ls", FOLDER).stdout.split()) == {
            *("ca.pem", "client.pem", "client.key", "joined.json"),
        }, "neither the authority's key nor root's certificate leaves the first host"
    stranger = bed.client("stranger")
    ask = ("etcdctl", f"--endpoints=https://{first.address}:2379", "--command-timeout=3s")
    first.run("cp", "-r", FOLDER, bed.folder / "stolen")
    trust = f"--cacert={bed.folder}/stolen/ca.pem"
    for words in ((), ("--user", "root:x"), ("--user", "flannel:x")):
        result = stranger.run(
            *ask, trust, *words, "get", "/", env={"ETCDCTL_API": "3"}, check=False
        )
        assert not result.ok
    for user in ("client", "server"):
        put = etcdctl(first, "put", "/x", "y", user=user, check=False)
        assert "permission denied" in put.stderr
        assert not etcdctl(first, "user", "list", user=user, check=False).ok
    network(first, "app")
    web(first, "web", "app")
    reach = first.docker(
        "exec", "web", "nc", "-w", "3", first.address, "2379", check=False, input=""
    )
    assert not reach.ok, "containers do not even connect"


def test_what_a_flanneld_asks_of_etcd_is_answered(world: World) -> None:
    """The calls of flannel 0.2x, by etcd's own Go client with the same files."""
    first = world.hosts[0]
    config = etcdctl(first, "get", "/coreos.com/network/config", user="client").stdout
    assert json.loads(config.splitlines()[1])["SubnetLen"] == 21
    grant = etcdctl(first, "lease", "grant", "120", user="client").stdout.split()[1]
    key = f"{LEASES}10.2.248.0-21"
    value = (
        '{"PublicIP":"192.0.2.250","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:02:50"}}'
    )
    etcdctl(first, "put", f"--lease={grant}", key, value, user="client")
    wait_for(
        lambda: "10.2.248.0/21" in {p["subnet"] for p in status(world.hosts[1])["peers"]}, "peer"
    )
    shown = etcdctl(
        first, "get", "--prefix", LEASES.rstrip("/"), "-w", "json", user="client"
    ).stdout
    ids = [kv["lease"] for kv in json.loads(shown)["kvs"]]
    assert len(ids) == 4
    for number in ids:
        assert (
            "remaining"
            in etcdctl(first, "lease", "timetolive", f"{number:x}", user="client").stdout
        )
    etcdctl(first, "lease", "revoke", grant, user="client")


def test_the_token_is_in_no_log(world: World) -> None:
    secrets = [
        world.token[-40:],
        world.hosts[0].run("sed", "-n", "2p", FOLDER / "client.key").stdout,
    ]
    for host in world.hosts:
        logs = host.run("cat", f"/run/units/{UNIT}.log").stdout
        assert "lease held" in logs
        assert not any(secret.strip() in logs for secret in secrets)
    assert "secret" in world.first.stdout
    assert not any(secret.strip() in world.first.stderr for secret in secrets)


def pids(host: Host) -> list[str]:
    """Return the processes of the services."""
    files = host.run("sh", "-c", "cat /run/units/*.pid").stdout
    return files.split()


def test_repeating_is_harmless_and_quick(world: World) -> None:
    for host in world.hosts:
        before, had, files = (
            pids(host),
            subnet(host),
            host.run("ls", "-la", FOLDER, SETTINGS).stdout,
        )
        result = again(world, host)
        assert pids(host) == before, "nothing is restarted"
        assert subnet(host) == had
        assert f"this host has {had}" in result.stdout
        assert result.seconds < 10
        now = host.run("ls", "-la", FOLDER, SETTINGS).stdout
        assert re.sub(r"\d\d:\d\d|total.*", "", now) == re.sub(r"\d\d:\d\d|total.*", "", files)
    assert token(flannel(world.hosts[0], "init")) == world.token


def test_leave_and_join_again(world: World) -> None:
    first, host, _ = world.hosts
    had = subnet(host)
    host.run("sh", "-c", f"echo DOCKER_FLANNEL_LOG_LEVEL=debug >> {SETTINGS}")
    network(host, "app")
    network(host, "db")
    assert "docker network rm app db" in refused(host, "leave")
    assert subnet(host) == had
    tidy(host)
    left = flannel(host, "leave")
    assert "has left the flannel network" in left.stdout
    assert had not in leases(first)
    assert host.run("cat", SETTINGS).stdout == "DOCKER_FLANNEL_LOG_LEVEL=debug\n"
    assert not host.run("ls", FOLDER, check=False).ok
    found = status(host)
    assert found["lease"]["source"] == "standalone"
    assert not found["problems"]
    assert "flannel.1" not in host.run("ip", "link").stdout
    assert host.run("ip", "route", "show", "proto", "91").stdout == ""
    network(host, "alone")
    web(host, "web", "alone")
    assert "is in no network" in flannel(host, "leave").stdout
    message = refused(host, "join", "-", given=world.token)
    assert "docker network rm alone" in message
    assert "10.2.0.0/20 (standalone)" in message
    assert host.run("cat", SETTINGS).stdout == "DOCKER_FLANNEL_LOG_LEVEL=debug\n"
    tidy(host)
    again(world, host)
    assert subnet(host) == had
    assert "LOG_LEVEL=debug\n" in host.run("cat", SETTINGS).stdout


def test_the_first_host_leaves_last(world: World) -> None:
    first, two, three = world.hosts
    message = refused(first, "leave")
    assert two.address in message
    assert three.address in message
    assert "--with-etcd" in message
    assert subnet(first)
    flannel(two, "leave")
    flannel(three, "leave")
    flannel(first, "leave")
    for gone in (FOLDER, "/var/lib/etcd/docker-flannel"):
        assert not first.run("ls", gone, check=False).ok
    assert not first.run(
        "ls", "/etc/systemd/system/etcd.service.d/docker-flannel.conf", check=False
    ).ok
    assert status(first)["lease"]["source"] == "standalone"
    first.run("systemctl", "stop", "etcd.service")
    first.run("rm", "-rf", "/var/lib/etcd/default")  # what etcd wrote there since it is put back
    old, world.token = world.token, token(flannel(first, "init", "--subnet-len", "22"))
    assert old != world.token
    message = refused(two, "join", "-", given=old)
    assert f"https://{first.address}:2379" in message
    assert "not signed by our CA" in message
    assert status(two)["lease"]["source"] == "standalone"
    assert not two.run("ls", FOLDER, check=False).ok
