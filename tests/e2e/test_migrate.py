"""From flanneld and dockerd's --bip to this driver, host by host, with a stack that runs meanwhile.

On h1 flanneld's options are on dockerd's command line; on h2 they are in daemon.json, and
live-restore is on. The tests are the stages of one migration and build on one another.
"""

from __future__ import annotations

import logging
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from itertools import count, pairwise
from pathlib import Path

import pytest

from tests import pages
from tests.bed import wait_for
from tests.e2e.helpers import FLANNEL, enter, gets, inspect, pings, status
from tests.e2e.old_host import DROP_IN, STACK, OldHost
from tests.e2e.overlay import LEASES, World, empty_world

HEARTBEAT = str(Path(__file__).with_name("heartbeat.py"))
MOVED = (
    STACK.replace("    network_mode: bridge\n", "")
    + """\
networks:
  default:
    driver: flannel
    ipam: {{driver: flannel}}
"""
)
DEFAULT = "shop_default"  # the stack's network
PORT = "7001"
AWAY_S = 60.0  # no step may take a container away for longer; dockerd's restart takes 2 to 5 s
FRESH = count(1)
REPLY = re.compile(r"^\[(\d+\.\d+)\].*time=", re.M)


log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with empty_world("vxlan") as made:
        yield made


@pytest.fixture(scope="module")
def two(world: World) -> list[OldHost]:
    hosts = [OldHost(world.host(name), world.url, in_file=name == "h2") for name in ("h1", "h2")]
    for host in hosts:
        host.start()
    reach(*hosts)
    for host in hosts:
        host.install()
    return hosts


def where(host: OldHost) -> str:
    """Return the network that the host's stack is in."""
    found = inspect(host.host, "container", f"web-{host.name}")
    [network] = found["NetworkSettings"]["Networks"]
    return str(network)


def reach(one: OldHost, other: OldHost) -> None:
    """Wait until the stacks' containers reach each other, in both directions, by ping and HTTP."""
    for here, there in ((one, other), (other, one)):
        ip = there.web(where(there))
        source = f"near-{here.name}"
        wait_for(lambda: pings(here.host, source, ip), f"{here.name} to reach {there.name}")
        assert gets(here.host, source, f"http://{ip}/")


def keys(world: World) -> dict[str, str]:
    """Return the leases in etcd."""
    lines = world.etcdctl("get", "--prefix", LEASES).stdout.splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def footprint(host: OldHost) -> tuple[str, ...]:
    """Return what a step might change."""
    kernel = (
        ("ip", "-4", "-o", "address"),
        ("ip", "route"),
        ("iptables", "-S"),
        ("iptables", "-t", "nat", "-S"),
    )
    files = "/etc/docker/daemon.json", DROP_IN, "/etc/default/docker-flannel"
    pids = host.host.docker("ps", "-q", "--no-trunc").stdout
    shown = [re.sub(r"valid_lft \S+|preferred_lft \S+", "", host.run(*c).stdout) for c in kernel]
    return (*shown, *map(host.file, files), pids, host.run("pidof", "dockerd").stdout)


@contextmanager
def gap(host: OldHost, target: str) -> Iterator[list[float]]:
    """Ping from a host's `near`; the list gets the longest time without an answer, in seconds."""
    found: list[float] = []
    ping = (*enter(host.host, f"near-{host.name}"), "ping", "-D", "-n", "-i", "0.1", target)
    process = host.host.popen(*ping, log_name=f"gap-{next(FRESH)}")
    wait_for(lambda: len(REPLY.findall(process.log())) > 3, f"{target} to answer")
    yield found
    seen = len(REPLY.findall(process.log()))
    wait_for(lambda: len(REPLY.findall(process.log())) > seen + 3, f"{target} to answer again")
    process.signal(signal.SIGINT)
    process.wait()
    times = map(float, REPLY.findall(process.log()))
    found.append(max(later - earlier for earlier, later in pairwise(times)))
    log.info("%s did not reach %s for %.2f s", host.name, target, found[0])


@contextmanager
def connection(one: OldHost, other: OldHost) -> Iterator[None]:
    """Keep a TCP connection from one host's `near` to the other's `web`; it must not break."""
    serve = (*enter(other.host, f"web-{other.name}"), sys.executable, HEARTBEAT, "serve", PORT)
    server = other.host.popen(*serve, log_name=f"serve-{next(FRESH)}")
    beat = (sys.executable, HEARTBEAT, "beat", other.web(where(other)), PORT)
    listening = (*enter(other.host, f"web-{other.name}"), "ss", "-ltn", f"sport = :{PORT}")
    wait_for(lambda: "LISTEN" in other.run(*listening).stdout, "the server")
    client = one.host.popen(
        *enter(one.host, f"near-{one.name}"), *beat, log_name=f"beat-{next(FRESH)}"
    )
    wait_for(lambda: "ready" in client.log(), "the connection")
    yield
    answered = client.log().count("\n")
    wait_for(lambda: client.log().count("\n") > answered + 3, "the connection to go on")
    assert client.running()
    client.kill()
    server.kill()


# --- what is said ---


def test_the_first_network_and_what_migrate_says(world: World, two: list[OldHost]) -> None:
    for host in two:
        before = footprint(host)
        refused = host.host.docker("network", "create", *FLANNEL, "app", check=False).stderr
        assert f"it is held by {host.docker0()} (on docker0)" in refused
        assert "`docker-flannel migrate` shows how to move it" in refused
        [look] = pages.commands("docs/migration.md", "From flanneld and --bip to this driver")
        shown = host.command(*look.split()[1:]).stdout
        source = "/etc/docker/daemon.json" if host.in_file else "/run/flannel/docker"
        for words in (
            "flanneld.service, enabled", f"FLANNELD_ETCD_ENDPOINTS={world.url}",
            f"{host.docker0()[1]}/24, all of the lease", f"set in {source}",
            f"live-restore    {'on' if host.in_file else 'off'}",
            "filter FLANNEL-FWD, nat FLANNEL-POSTRTG", "1 of flanneld's to other hosts",
            f"web-{host.name} has {host.web()} of the lease",
            "run systemctl restart docker.service",
        ):  # fmt: skip
            assert words in shown, f"{words!r} is not in\n{shown}"
        assert footprint(host) == before, "it shows, and changes nothing"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["release"], "would lose the lease address on docker0"),
        (["replace"], "`docker-flannel migrate release` comes first"),
        (["share", "--undo"], "share was not carried out"),
        (["--undo"], "--undo and --force need a step"),
    ],
)
def test_what_comes_too_early_changes_nothing(
    two: list[OldHost], words: list[str], why: str
) -> None:
    before = footprint(two[0])
    refused = two[0].command("migrate", *words, check=False)
    assert not refused.ok
    assert why in refused.stderr
    assert footprint(two[0]) == before


# --- h1, while h2 stays as it is ---


def test_docker0_shares_the_lease(world: World, two: list[OldHost]) -> None:
    one, other = two
    leases, running, old = keys(world), one.containers(), one.docker0()
    with gap(other, str(old[2])) as away:  # it has two containers, and so this address again
        one.command("migrate", "share")
    assert away[0] < AWAY_S
    assert one.docker0() == next(old.subnets(2))
    assert one.containers() == running, "also those without a restart policy"
    reach(one, other)
    assert keys(world) == leases
    before = footprint(one)
    assert "nothing to do" in one.command("migrate", "share").stdout
    assert footprint(one) == before


def test_a_stack_moves_while_another_host_has_all_on_docker0(two: list[OldHost]) -> None:
    one, other = two
    one.stack(MOVED)
    block = IPv4Network(inspect(one.host, "network", DEFAULT)["IPAM"]["Config"][0]["Subnet"])
    assert not block.overlaps(one.docker0())
    assert IPv4Address(one.web(DEFAULT)) in block
    reach(one, other)
    refused = one.command("migrate", "share", "--undo", check=False)
    assert "docker network rm shop_default" in refused.stderr


def test_docker0_leaves_the_lease_and_comes_back(world: World, two: list[OldHost]) -> None:
    one, other = two
    running, part, leases = one.containers(), one.docker0(), keys(world)
    with gap(other, one.web(DEFAULT)) as away:
        one.command("migrate", "release")
    assert away[0] < AWAY_S
    assert not one.docker0().overlaps(part)
    assert one.containers() == running
    reach(one, other)
    one.command("migrate", "release", "--undo")
    assert one.docker0() == part
    assert one.containers() == running
    reach(one, other)
    one.command("migrate", "release")
    reach(one, other)
    assert keys(world) == leases


def test_flanneld_is_replaced_and_nobody_notices(world: World, two: list[OldHost]) -> None:
    one, other = two
    leases, docker = keys(world), one.run("pidof", "dockerd").stdout
    for words in (["replace"], ["replace", "--undo"], ["replace"]):
        with connection(other, one), gap(other, one.web(DEFAULT)) as away:
            one.command("migrate", *words)
        assert away[0] < 1, "no answer, or one that is late, is missing"
        assert keys(world) == leases, "lease, public IP and MAC"
        assert one.run("pidof", "dockerd").stdout == docker, "which flanneld.service was a need of"
        reach(one, other)
    gone(one)


def gone(host: OldHost) -> None:
    """Check that nothing of flanneld is left."""
    assert not host.run("pidof", "flanneld", check=False).ok
    saved = host.run("iptables-save").stdout
    assert not [word for word in ("FLANNEL-FWD", "FLANNEL-POSTRTG", "flanneld") if word in saved]
    assert not host.run("ip", "route", "show", "proto", "boot", "dev", "flannel.1").stdout
    assert "written by docker-flannel" in host.file("/run/flannel/subnet.env")
    assert not host.run("systemctl", "is-enabled", "flanneld.service", check=False).ok
    assert "done: the lease" in host.command("migrate").stdout
    told = status(host.host)
    assert (told["lease"]["source"], told["phase"], told["problems"]) == ("etcd", "held", [])
    assert "nothing to do" in host.command("migrate", "replace").stdout


# --- h2: with live-restore, killed on the way, undone from the middle ---


def test_a_killed_command_goes_on_where_it_stopped(two: list[OldHost]) -> None:
    other, one = two
    running, old = one.containers(), one.docker0()
    one.killed_at_the_restart("share")
    one.command("migrate", "share")
    assert one.docker0() == next(old.subnets(2))
    assert one.containers() == running
    reach(one, other)
    one.killed_at_the_restart("share", "--undo")
    one.command("migrate", "share", "--undo")
    assert (one.docker0(), one.containers()) == (old, running)
    reach(one, other)


def test_the_second_host_follows(world: World, two: list[OldHost]) -> None:
    other, one = two
    leases, running = keys(world), one.containers()
    one.command("migrate", "share")
    reach(one, other)
    one.stack(MOVED)
    reach(one, other)
    one.command("migrate", "release")
    reach(one, other)
    with connection(other, one), gap(other, one.web(DEFAULT)) as away:
        one.command("migrate", "replace")
    assert away[0] < 1
    reach(one, other)
    assert one.containers() == running
    assert keys(world) == leases
    gone(one)


def test_all_comes_back_when_docker_restarts(two: list[OldHost]) -> None:
    one, other = two
    for host in two:
        host.run("systemctl", "restart", "docker-flannel.service", "docker.service")
        host.compose("up", "-d")
    reach(one, other)
