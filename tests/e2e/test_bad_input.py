"""What cannot be meant is refused in one clear sentence, and leaves no trace."""

from __future__ import annotations

import json

import pytest

from tests.bed import Host, diff, snapshot, unixhttp
from tests.e2e.helpers import FLANNEL, container, docker_major, network
from tests.e2e.leaving import MAY_DIFFER

DRIVER = "com.docker.network"
NETWORKS = [
    ("--subnet 10.9.0.0/24", "10.9.0.0/24 is not inside this host's flannel lease 10.2.0.0/20"),
    ("--subnet 10.2.0.0/19", "subnet 10.2.0.0/19 is not inside"),
    ("--subnet 10.2.4.7/24", "Pool '10.2.4.7/24' is no IPv4 prefix like 10.2.0.0/26"),
    ("--subnet 10.2.4.0/31", "10.2.4.0/31 is too small for a network; /30 is the smallest"),
    ("--subnet 10.2.4.0/32", "10.2.4.0/32 is too small for a network; /30 is the smallest"),
    ("--subnet 10.2.4.0/24 --gateway 10.2.5.1", "10.2.5.1"),
    ("--subnet 10.2.4.0/24 --gateway 10.2.4.0", "10.2.4.0 is the network address"),
    ("--subnet 10.2.4.0/24 --aux-address a=10.2.5.9", "10.2.5.9"),
    ("--subnet 10.2.4.0/24 --aux-address a=10.2.4.255", "is the broadcast address"),
    ("--ipv6 --subnet fd00::/64", "IPv6 was asked for, but this host's flannel lease has no IPv6"),
    (
        "--ipam-opt flannel.sise=/26",
        "--ipam-opt 'flannel.sise' is unknown; these are known: flannel",
    ),
    ("--ipam-opt flannel.size=/31", "flannel.size /31 is not between /20 and /30"),
    ("--ipam-opt flannel.size=x", "option flannel.size 'x' is not a prefix length like /26"),
    ("-o colour=red", "option -o 'colour' is unknown; these are known: com.docker.network.driver"),
    (f"-o {DRIVER}.driver.mtu=575", "mtu '575' is not a number from 576 to 65535"),
    (f"-o {DRIVER}.driver.mtu=big", "mtu 'big' is not a number from 576 to 65535"),
    (f"-o {DRIVER}.container_iface_prefix=a/b", "container_iface_prefix 'a/b' is not"),
    (f"-o {DRIVER}.bridge.enable_ip_masquerade=maybe", "'maybe' is not true or false"),
]


# what Docker itself refuses since 26, before it asks us
DOCKERS_OWN = {
    "--subnet 10.2.4.7/24": "invalid subnet 10.2.4.7/24: it should be 10.2.4.0/24",
}


@pytest.mark.parametrize(("options", "words"), NETWORKS)
def test_network_create(host: Host, options: str, words: str) -> None:
    if docker_major(host) >= 26:
        words = DOCKERS_OWN.get(options, words)
    refused = host.docker("network", "create", *FLANNEL, *options.split(), "bad", check=False)
    assert_one_sentence(refused.stderr, words)


def test_subnet_of_another_network(host: Host) -> None:
    block = network(host, "app")
    refused = host.docker("network", "create", *FLANNEL, "--subnet", str(block), "b", check=False)
    assert_one_sentence(refused.stderr, f"subnet {block} overlaps {block} of network ")


def test_a_pool_of_dockers_own_choice(host: Host) -> None:
    """It gets a block of the lease beside it, see test_short_form; but not where both overlap."""
    for subnet in ("10.2.16.0/24", "10.0.0.0/8"):
        command = ("network", "create", "-d", "flannel", "--subnet", subnet, "b")
        refused = host.docker(*command, check=False)
        words = f"subnet {subnet} overlaps the flannel network 10.2.0.0/16 and is not inside"
        assert_one_sentence(refused.stderr, words)
    command = ("network", "create", "-d", "flannel", "-o", "flannel.size=/31", "b")
    refused = host.docker(*command, check=False)
    assert_one_sentence(refused.stderr, "flannel.size /31 is not between /20 and /30")


def test_addresses(host: Host) -> None:
    network(host, "app", "--subnet", "10.2.4.0/28", "--aux-address", "printer=10.2.4.9")
    container(host, "one", "app", "--ip", "10.2.4.5")
    for ip, words in (
        ("10.2.4.5", "address 10.2.4.5 is already in use in 10.2.4.0/28"),
        ("10.2.4.9", "address 10.2.4.9 is already in use in 10.2.4.0/28"),
        ("10.2.4.0", "address 10.2.4.0 is the network address of 10.2.4.0/28"),
        ("10.2.4.15", "address 10.2.4.15 is the broadcast address of 10.2.4.0/28"),
        ("10.2.4.1", "address 10.2.4.1 is the gateway of 10.2.4.0/28"),
        ("10.2.9.9", "10.2.9.9"),
    ):
        run = ("run", "--rm", "--network", "app", "--ip", ip, "box", "true")
        assert_one_sentence(host.docker(*run, check=False).stderr, words)
    network(host, "auto")
    refused = host.docker(
        "run", "--rm", "--network", "auto", "--ip", "10.2.0.9", "box", "true", check=False
    )
    assert_one_sentence(refused.stderr, "user configured subnets")


def assert_one_sentence(stderr: str, words: str) -> None:
    """Check that Docker shows the words, on one line, and no traceback.

    Two kinds of line are the client's own: the hint at --help, and the log of its call that waited
    for the container, cut off as it ends (it shows or not by chance).
    """
    own = ("--help", "error waiting for container: context canceled")
    joined = stderr.replace(":\n", ": ")  # Docker breaks its own words so, since 26
    lines = [line for line in joined.splitlines() if line and not any(o in line for o in own)]
    assert words in lines[0]
    assert len(lines) == 1
    assert "Traceback" not in stderr


LONG = "a" * 300
BASE = {"NetworkID": "a" * 64, "EndpointID": "b" * 64, "SandboxKey": "/run/docker/netns/x"}
POST_BODIES = [
    (b"", "has no body"),
    (b"{", "is no JSON"),
    (b"[]", "is a JSON list, not an object"),
    (b'"text"', "is a JSON str, not an object"),
    (b"\xff\xfe", "is no JSON"),
    (b"{}", "is missing"),
]
IDS = ("../../etc/passwd", "a/b", "..", LONG, "aaaaaaaaaaaä", "AAAAAAAAAAAA", "", 7, None, ["x"])
WITH_IDS = (
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
)


def test_bodies_and_ids_of_every_call(host: Host) -> None:
    before = snapshot(host)
    socket = host.path("/run/docker/plugins/flannel.sock")
    for method in (*WITH_IDS, "IpamDriver.ReleasePool", "IpamDriver.RequestAddress"):
        for body, words in POST_BODIES:
            status, answer = unixhttp.request(socket, "POST", f"/{method}", body, 10)
            check_refusal(status, json.loads(answer), words)
    for method in WITH_IDS:
        for bad in IDS:
            if method not in ENDPOINT_ONLY:
                check_refusal(*host.call(method, {**BASE, "NetworkID": bad}), "ID ")
            if not method.endswith("Network"):
                check_refusal(*host.call(method, {**BASE, "EndpointID": bad}), "ID ")
    assert diff(before, snapshot(host), ignore=MAY_DIFFER) == []


# these go by the endpoint's id, and one that is not there is gone already
ENDPOINT_ONLY = (
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Leave",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
)


def check_refusal(status: int, answer: dict[str, str], words: str) -> None:
    """Check that an answer is a failure in Docker's form, with the words and no more lines."""
    assert status not in (200, 404)
    assert answer["Err"] == answer["Error"]
    assert words in answer["Err"]
    assert "\n" not in answer["Err"]
    assert len(answer["Err"]) < 300


def test_an_unknown_call(host: Host) -> None:
    status, answer = host.call("NetworkDriver.Explode", {})
    assert status == 404
    assert "/NetworkDriver.Explode: Not Found" in answer["Err"]
