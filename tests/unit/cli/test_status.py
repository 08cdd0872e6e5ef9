"""The tables of `docker flannel status`."""

from __future__ import annotations

from typing import Any

import pytest

from driver.api.status import document
from driver.cli.status import add_names, render
from driver.docker.engine import Container, Names
from driver.model.firewall import Ruleset
from tests.unit.bench import make_core
from tests.unit.docker import Docker, port


def shown(doc: dict[str, Any], names: Names = Names()) -> list[str]:  # noqa: B008 - immutable
    """Return the lines, with one space between words."""
    return [" ".join(line.split()) for line in render(add_names(doc, names)).splitlines()]


@pytest.fixture
def doc() -> dict[str, Any]:
    bench = make_core()
    docker = Docker(bench)
    docker.start(docker.create_network(), port(80, 8080), port(53, 53, proto=17, host="10.0.0.1"))
    docker.start(docker.create_network(internal=True))
    docker.quietly("IpamDriver.RequestPool", Pool="10.2.0.128/25")
    bench.core.converge()
    bench.nft.lose(Ruleset)
    bench.passes(1)
    return document(bench.core)


def test_an_empty_host() -> None:
    assert render(document(make_core().core)).splitlines() == [
        "lease      10.2.0.0/24 of 10.2.0.0/16, from standalone, MTU 1450, 256 addresses in no "
        "block",
        "phase      held",
        "firewall   nft",
        "networks   0",
        "endpoints  0",
        "repaired   nothing",
        "problems   none",
    ]


def test_no_lease_yet(doc: dict[str, Any]) -> None:
    lines = shown({**doc, "lease": None, "phase": "waiting", "note": "for flanneld"})
    assert lines[:2] == ["lease none yet", "phase waiting: for flanneld"]


def test_networks_and_endpoints_have_a_line_each(doc: dict[str, Any]) -> None:
    one, two = (network["id"][:12] for network in doc["networks"])
    lines = shown(doc)
    heads = lines.index("NETWORK BLOCK GATEWAY USED MTU BRIDGE NOTE")
    assert lines[heads + 1 : heads + 4] == [
        f"{one} 10.2.0.0/27 10.2.0.1 2 of 30 1450 fl-{one}",
        f"{two} 10.2.0.32/27 10.2.0.33 2 of 30 1450 fl-{two} internal",
        "10.2.0.128/25 of another driver",
    ]
    heads = lines.index("ENDPOINT CONTAINER NETWORK DOCKER ADDRESS LEASE ADDRESS PORTS")
    assert lines[heads + 1].endswith(
        f" - {one} 10.2.0.2/27 10.2.0.2/27 10.0.0.1:53->53/udp, 0.0.0.0:8080->80/tcp"
    )


def test_peers_are_shown_up_to_a_limit(doc: dict[str, Any]) -> None:
    doc["overlay"] = {"backend": "host-gw", "vni": 1, "public_ip": "192.0.2.1", "mac": None}
    doc["peers"] = [
        {"subnet": f"10.2.{n}.0/24", "public_ip": f"192.0.2.{n}", "mac": None} for n in range(1, 24)
    ]
    lines = shown(doc)
    assert "peers 23" in lines
    assert lines[lines.index("PEER PUBLIC IP MAC") + 20 :][:2] == [
        "10.2.20.0/24 192.0.2.20 -",
        "and 3 more",
    ]


def test_sentences_come_last_and_are_counted_above(doc: dict[str, Any]) -> None:
    doc["warnings"], doc["problems"] = ["nft is old"], ["no bridges today", "no etcd"]
    lines = shown(doc)
    assert lines[-6:] == ["WARNING", "nft is old", "", "PROBLEM", "no bridges today", "no etcd"]
    assert {"repaired 1", "warnings 1", "problems 2"} <= set(lines)
    assert any("1 ruleset" in line for line in lines[lines.index("REPAIRED AT WHAT") :])


def test_names_where_docker_knows_them(doc: dict[str, Any]) -> None:
    network, end = doc["networks"][0]["id"], doc["endpoints"][0]["id"]
    doc["problems"] = [f"network {network[:12]} is odd", "network 000000000000 is odd"]
    doc["warnings"] = [f"endpoint {end[:12]} is odd"]
    names = Names({network: "app"}, {end: Container("8" * 64, "web")})
    lines = shown(doc, names)
    assert f"app 10.2.0.0/27 10.2.0.1 2 of 30 1450 fl-{network[:12]}" in lines
    assert any(line.startswith(f"{end[:12]} web app 10.2.0.2/27") for line in lines)
    assert f"endpoint {end[:12]} (container web) is odd" in lines
    assert lines[-2:] == [f"network {network[:12]} (app) is odd", "network 000000000000 is odd"]
    found = add_names(doc, names)
    assert [n["name"] for n in found["networks"]] == ["app", None]
    known, unknown = ((e["container"], e["name"], e["network_name"]) for e in found["endpoints"])
    assert known == ("8" * 64, "web", "app")
    assert unknown == (None, None, None)
