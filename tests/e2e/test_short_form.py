"""`docker network create -d flannel` and `driver: flannel`, with nothing else, on one host.

All of it runs on every Docker (DOCKER_ROOT); `since_28` marks what only Docker 28 and later can
do, and says what an older one does instead.
"""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network

import pytest

from tests.bed import Host, Node, wait_for
from tests.e2e.helpers import (
    answers,
    container,
    enter,
    gets,
    in_lease,
    inside,
    network,
    pings,
    status,
    web,
)
from tests.e2e.short_form import STACK, create, lease_ip, ps, settled, sources

OVERLAY = "10.2.0.0/16"


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
        wait_for(lambda: asked.reaches(url), "the port")
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
        wait_for(lambda: answers(host, "beside", target), "the internal network itself")
    assert "default" not in inside(host, "beside", "ip", "route").stdout
    assert not answers(host, "beside", "192.0.2.1")


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
    shown = host.run(*enter(host, name), "ip", "-o", "-4", "addr").stdout
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
    wait_for(lambda: status(host)["problems"] == [] and ps(host) == [], "nothing left")
