"""`docker network create -d flannel` and `driver: flannel`, with nothing else, on one host.

All of it runs on every Docker (DOCKER_ROOT); `since_28` marks what only Docker 28 and later can
do, and says what an older one does instead.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.bed import Host, Node, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import (
    address,
    container,
    docker_major,
    gets,
    in_lease,
    inside,
    inspect,
    network,
    pings,
    web,
)
from tests.e2e.test_restart import as_it_was

OVERLAY = "10.2.0.0/16"
STACK = """\
version: "3.5"
services:
  web:
    image: box
    container_name: stack_web
    command: httpd -f -p 80 -h /www
    ports: ["8080:80"]
  client:
    image: box
    container_name: stack_client
    command: sleep infinity
networks:
  default:
    driver: flannel
"""


@pytest.fixture
def since_28(running: Host) -> bool:
    """Tell whether Docker is one that can leave IPv4 to the driver."""
    return docker_major(running) >= 28


def create(host: Host, name: str, *options: str) -> IPv4Network:
    """Make a network with nothing but the driver's name; give the subnet Docker chose."""
    host.docker("network", "create", "-d", "flannel", *options, name)
    return IPv4Network(inspect(host, "network", name)["IPAM"]["Config"][0]["Subnet"])


def ps(host: Host) -> list[dict[str, Any]]:
    command = (sys.executable, "-m", "driver", "ps", "--json")
    found: list[dict[str, Any]] = json.loads(host.run(*command, cwd=PROJECT).stdout)
    return found


def lease_ip(host: Host, name: str, net: str = "app") -> str:
    """Give a container's lease address, as `docker flannel ps` shows it."""
    of = inspect(host, "container", name)["NetworkSettings"]["Networks"][net]["EndpointID"]
    [row] = [row for row in ps(host) if row["endpoint"] == of]
    assert (row["name"], row["network_name"]) == (name, net)
    return str(row["lease_address"]).partition("/")[0]


def sources(host: Host, name: str, *targets: str) -> list[str]:
    """Give the sources of a container's packets to some targets."""
    pid = inspect(host, "container", name)["State"]["Pid"]
    found = []
    for target in targets:
        get = ("nsenter", "-n", "-t", str(pid), "ip", "-o", "route", "get", target)
        found.append(re.findall(r" src (\S+)", host.run(*get).stdout)[0])
    return found


def has_both(host: Host, name: str, net: str = "app") -> str:
    """Give a container's lease address if it has that and Docker's; "" before it has."""
    ip, lease = address(host, name, net), lease_ip(host, name, net)
    assert in_lease(lease)
    pid = inspect(host, "container", name)["State"]["Pid"]
    shown = host.run("nsenter", "-n", "-t", str(pid), "ip", "-o", "-4", "addr").stdout
    if not (f" {ip}/" in shown and f" {lease}/" in shown):
        return ""
    return lease if sources(host, name, "192.0.2.1", "10.2.99.9") == [ip, lease] else ""


def settled(host: Host, name: str, net: str = "app") -> str:
    """Wait until a container has its lease address, and give it."""
    return wait_for(lambda: has_both(host, name, net), f"the lease address of {name}")


def test_names_ports_and_both_addresses(host: Host, visitor: Node) -> None:
    subnet = create(host, "app")
    assert not subnet.overlaps(IPv4Network(OVERLAY))
    one = web(host, "one", "app", "-p", "8080:80")
    container(host, "two", "app")
    assert IPv4Address(one) in subnet
    leases = {name: settled(host, name) for name in ("one", "two")}
    assert gets(host, "two", "http://one/") == "one"
    for ip in (one, leases["one"]):
        assert pings(host, "two", ip)
        assert gets(host, "two", f"http://{ip}/") == "one"
        assert host.fetch(f"http://{ip}/").strip() == "one"
    url = f"http://{host.address}:8080/"
    for asked in (visitor, host):
        wait_for(lambda asked=asked: asked.reaches(url), "the port")
        assert asked.fetch(url).strip() == "one"
    assert host.fetch("http://127.0.0.1:8080/").strip() == "one"
    assert gets(host, "two", url) == "one", "hairpin"
    assert gets(host, "one", url) == "one", "its own port"
    assert pings(host, "one", "192.0.2.1"), "the outside, masqueraded"
    assert "better is one address: --ipam-driver flannel" in host.plugin_log()


def test_compose_twenty_times(host: Host) -> None:
    folder = host.folder / "short"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(STACK)
    for turn in range(20):
        host.compose("up", "-d", cwd=folder)
        if turn % 10 == 0:
            settled(host, "stack_web", "short_default")
        wait_for(lambda: gets(host, "stack_client", "http://web/") == "box", "the name `web`")
        assert host.fetch("http://127.0.0.1:8080/").strip() == "box"
        host.compose("down", cwd=folder)
    assert ps(host) == []


def test_two_such_networks_and_an_internal_one(host: Host) -> None:
    subnets = [create(host, "app"), create(host, "other"), create(host, "inner", "--internal")]
    assert not any(a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[:i])
    ips = {net: web(host, f"in-{net}", net) for net in ("app", "other", "inner")}
    both = {net: (ip, lease_ip(host, f"in-{net}", net)) for net, ip in ips.items()}
    settled(host, "in-app")
    settled(host, "in-other", "other")
    for one, two in (("app", "other"), ("other", "app"), ("app", "inner"), ("inner", "app")):
        for target in both[two]:
            assert not answers(host, f"in-{one}", target), f"{one} reaches {two} at {target}"
    container(host, "beside", "inner")
    for target in both["inner"]:
        wait_for(lambda t=target: answers(host, "beside", t), "the internal network itself")
    assert "default" not in inside(host, "beside", "ip", "route").stdout
    assert not answers(host, "beside", "192.0.2.1")


def answers(host: Host, name: str, target: str) -> bool:
    """Whether a target answers a ping within a second: where no answer is what is hoped for."""
    return inside(host, name, "ping", "-c", "1", "-W", "1", "-w", "1", target, check=False).ok


def test_a_plain_bridge_network_is_apart(host: Host) -> None:
    create(host, "app")
    host.docker("network", "create", "plain")
    one, plain = web(host, "one", "app"), web(host, "two", "plain")
    targets = (one, settled(host, "one"))
    assert not any(answers(host, "two", target) for target in targets)
    assert not answers(host, "one", plain)


def test_connect_and_disconnect(host: Host) -> None:
    create(host, "app")
    create(host, "other")
    network(host, "own")
    host.docker("network", "create", "plain")
    web(host, "one", "app")
    settled(host, "one")
    for net in ("other", "own", "plain"):
        container(host, f"in-{net}", net)
        host.docker("network", "connect", net, "one")
        assert pings(host, "one", f"in-{net}")
    lease = lease_ip(host, "one", "other")
    wait_for(lambda: host.reaches(f"http://{lease}/"), "the second address")
    host.docker("network", "disconnect", "app", "one")
    wait_for(lambda: sources(host, "one", "10.2.99.9") == [lease], "the other way out")
    for net in ("plain", "own", "other"):
        host.docker("network", "disconnect", net, "one")
    host.docker("network", "connect", "app", "one")
    settled(host, "one")


def test_on_start_all_networks_are_there_in_any_order(host: Host) -> None:
    create(host, "app")
    network(host, "own")
    host.docker("create", "--name", "one", "--network", "app", "box", "sleep", "1000000")
    host.docker("network", "connect", "own", "one")
    for _ in range(5):
        host.docker("start", "one")
        wait_for(lambda: lease_ip(host, "one") and has_lease(host, "one"), "the lease address")
        host.docker("stop", "one")


def has_lease(host: Host, name: str) -> bool:
    pid = inspect(host, "container", name)["State"]["Pid"]
    shown = host.run("nsenter", "-n", "-t", str(pid), "ip", "-o", "-4", "addr").stdout
    return f" {lease_ip(host, name)}/" in shown


@pytest.mark.parametrize(
    ("options", "script"),
    [
        (("--user", "65534:65534"), ""),
        (("--cap-drop", "ALL"), ""),
        (("--read-only",), ""),
        ((), "rm -f /bin/ip /bin/ifconfig /bin/route /sbin/ip; ! ip;"),
    ],
)
def test_whatever_the_container_may_and_has(
    host: Host, options: tuple[str, ...], script: str
) -> None:
    create(host, "app")
    command = ("box", "sh", "-c", f"{script} exec httpd -f -p 80 -h /www")
    host.docker("run", "-d", "--name", "one", "--network", "app", *options, *command)
    lease = settled(host, "one")
    wait_for(lambda: host.reaches(f"http://{lease}/"), "the server")


def test_it_is_there_before_the_first_instruction(host: Host, since_28: bool) -> None:
    """Docker 28 and later wait for the driver; before, it comes right after the interface."""
    create(host, "app")
    create(host, "inner", "--internal")
    early = 0
    for net in ("app", "inner") * 5:
        shown = host.docker("run", "--rm", "--network", net, "box", "ip", "-o", "-4", "addr").stdout
        early += any(in_lease(found) for found in re.findall(r"inet ([0-9.]+)/", shown))
    print(f"there at the first instruction: {early} of 10")  # noqa: T201 - for who reads the log
    assert early == 10 or not since_28


def test_how_soon_after_the_interface(host: Host) -> None:
    create(host, "app")
    watch = host.popen("ip", "-ts", "monitor", "all-nsid", "address", log_name="monitor")
    for number in range(10):
        container(host, f"one{number}", "app")
        settled(host, f"one{number}")
    watch.kill()
    docker, lease = (
        {interface: at for at, interface, ip in added(watch.log()) if in_lease(ip) == ours}
        for ours in (False, True)
    )
    took = sorted((lease[key] - docker[key]) * 1000 for key in lease)
    assert len(took) == 10
    middle = took[len(took) // 2]
    print(f"after Docker's address: {took[0]:.1f} to {took[-1]:.1f} ms, median {middle:.1f}")  # noqa: T201


def added(log: str) -> list[tuple[float, str, str]]:
    """Read (Unix time, interface with its namespace, address) from `ip -ts monitor all-nsid`."""
    line = re.compile(r"\[(\S+)\] \[nsid (\d+)\]\s*(\d+): \S+\s+inet ([0-9.]+)/")
    return [
        (datetime.fromisoformat(at).timestamp(), f"{nsid} {index}", ip)
        for at, nsid, index, ip in line.findall(log)
    ]


def test_containers_that_end_at_once(host: Host) -> None:
    create(host, "app")
    for _ in range(10):
        host.docker("run", "--rm", "--network", "app", "box", "true")
    ended = host.docker("run", "-d", "--network", "app", "box", "sleep", "1000000").stdout.strip()
    host.docker("kill", ended)
    wait_for(lambda: problems(host) == [] and ps(host) == [], "nothing left")


def problems(host: Host) -> list[str]:
    command = (sys.executable, "-m", "driver", "status", "--format", "json")
    found: list[str] = json.loads(host.run(*command, cwd=PROJECT).stdout)["problems"]
    return found


def test_the_plugin_stops_and_starts(host: Host, visitor: Node) -> None:
    create(host, "app")
    web(host, "one", "app", "-p", "8080:80")
    container(host, "two", "app")
    before = {name: settled(host, name) for name in ("one", "two")}
    for end in (host.stop_plugin, host.kill_plugin):
        end()
        pid = inspect(host, "container", "two")["State"]["Pid"]
        into = ("nsenter", "-n", "-t", str(pid), "ip")
        host.run(*into, "addr", "del", f"{before['two']}/26", "dev", "eth0")
        host.run(*into, "rule", "del", "priority", "32000")
        host.start_plugin()
        assert {name: settled(host, name) for name in ("one", "two")} == before
        assert visitor.fetch(f"http://{host.address}:8080/").strip() == "one"
        container(host, "new", "app")
        assert settled(host, "new") not in before.values()
        host.docker("rm", "-f", "new")
    host.docker("restart", "one")
    assert settled(host, "one") not in before.values(), "a freed address comes last"
    wait_for(lambda: visitor.reaches(f"http://{host.address}:8080/"), "the port after a restart")


def test_dockerd_restarts(running: Host, visitor: Node) -> None:
    host = running
    with as_it_was(host):
        host.stop_dockerd()
        host.start_dockerd(live_restore=True)
        create(host, "app")
        web(host, "one", "app", "-p", "8080:80")
        lease = settled(host, "one")
        for end in (host.stop_dockerd, host.kill_dockerd):
            end()
            host.restart_dockerd()
            assert settled(host, "one") == lease
            assert visitor.fetch(f"http://{host.address}:8080/").strip() == "one"
            container(host, "new", "app")
            settled(host, "new")
            host.docker("rm", "-f", "new")
        host.docker("rm", "-f", "one")
        host.docker("network", "rm", "app")
        host.stop_dockerd()
        host.start_dockerd()


def test_dockerd_is_killed_and_its_containers_start_again(running: Host, visitor: Node) -> None:
    """With its own IPAM Docker tells nothing of those that died, and gives their addresses anew."""
    host = running
    with as_it_was(host):
        create(host, "app")
        web(host, "one", "app", "-p", "8080:80", "--restart", "always")
        settled(host, "one")
        host.kill_dockerd()
        host.restart_dockerd()
        wait_for(lambda: inspect(host, "container", "one")["State"]["Running"], "the container")
        settled(host, "one")
        wait_for(lambda: visitor.reaches(f"http://{host.address}:8080/"), "the port")
        wait_for(lambda: len(ps(host)) == 1, "the old endpoint to go")


BLIND = "mount -t tmpfs tmpfs /run/docker/netns && exec {python} -m driver serve"


def test_a_sandbox_that_the_plugin_cannot_see(host: Host, visitor: Node) -> None:
    host.stop_plugin()
    host.run("mkdir", "-p", "/run/docker/netns")
    script = BLIND.format(python=sys.executable)
    host.start_plugin(argv=["unshare", "-m", "--propagation", "private", "sh", "-c", script])
    create(host, "app")
    ip = web(host, "one", "app", "-p", "8080:80")
    container(host, "two", "app")
    assert gets(host, "two", f"http://{ip}/") == "one", "all but the lease address works"
    assert gets(host, "two", "http://one/") == "one"
    assert visitor.fetch(f"http://{host.address}:8080/").strip() == "one"
    lease = lease_ip(host, "one")
    said = f"lacks its lease address {lease}, and other hosts do not reach it: sandbox "
    wait_for(lambda: any(said in problem for problem in problems(host)), "the problem to be told")
    assert not has_both(host, "one")
    host.stop_plugin()
    host.start_plugin()
    assert settled(host, "one") == lease
    assert problems(host) == []


def test_it_can_be_refused(host: Host) -> None:
    host.stop_plugin()
    host.start_plugin({"DOCKER_FLANNEL_REQUIRE_IPAM": "1"})
    refused = host.docker("network", "create", "-d", "flannel", "app", check=False)
    assert "add `--ipam-driver flannel`" in refused.stderr
    assert "`ipam: {driver: flannel}`" in refused.stderr
    network(host, "app")
    host.stop_plugin()
    host.start_plugin()


def test_ipv4_left_to_the_driver(host: Host, since_28: bool) -> None:
    """Docker 28 and later do; an older one has no such flag, and ignores the option."""
    option = "com.docker.network.enable_ipv4=false"
    if since_28:
        host.docker("network", "create", "-d", "flannel", "--ipv4=false", "app")
        one_address(host)
        host.docker("network", "rm", "app")
        host.docker("network", "create", "-d", "flannel", "-o", option, "app")
        one_address(host)
        return
    unknown = host.docker("network", "create", "-d", "flannel", "--ipv4=false", "app", check=False)
    assert "unknown flag: --ipv4" in unknown.stderr
    create(host, "app", "-o", option)
    container(host, "one", "app")
    settled(host, "one")


def test_no_ipam_at_all(host: Host) -> None:
    size = ("-o", "flannel.size=/28")
    host.docker("network", "create", "-d", "flannel", "--ipam-driver", "null", *size, "app")
    one_address(host)


def one_address(host: Host) -> None:
    """Two containers of `app` come and go, each with a lease address that Docker shows."""
    ips = {name: web(host, name, "app", "-p", f"{port}:80") for name, port in WEBS.items()}
    assert all(in_lease(ip) for ip in ips.values())
    assert len({*ips.values()}) == 2
    assert {name: lease_ip(host, name) for name in ips} == ips
    for name, port in WEBS.items():
        assert gets(host, "one", f"http://{name}/") == name
        url = f"http://{host.address}:{port}/"
        wait_for(lambda url=url: host.reaches(url), "the port")
        assert f" {ips[name]}/" in inside(host, name, "ip", "-o", "-4", "addr").stdout
    host.docker("restart", "one")
    assert in_lease(address(host, "one", "app"))
    host.docker("rm", "-f", *ips)
    assert ps(host) == []


WEBS = {"one": 8080, "two": 8081}
