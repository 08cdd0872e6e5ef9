"""The list of published ports, from what the host has."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from driver.__main__ import main
from driver.api.ports import document
from driver.cli.ports import add_names, of, render
from driver.docker.engine import Container as Known
from driver.docker.engine import Names
from driver.errors import UnknownObject
from driver.model.firewall import FirewallEntry
from driver.model.objects import PortSocket
from tests.unit.cli.command import Serve, http, refusal
from tests.unit.docker import Container, port
from tests.unit.plugin import Setting


def docker_knows(**called: Container) -> Names:
    return Names({}, {made.id: Known("c0ffee" * 10, name) for name, made in called.items()})


@pytest.fixture
def made(on: Setting) -> Container:
    net = on.docker.create_network()
    return on.docker.start(net, port(80, 8080), port(53, 53, proto=17, host="192.168.1.5"))


def test_every_port_with_what_the_host_has_of_it(on: Setting, made: Container) -> None:
    (dns, web) = sorted(document(on.bench.core)["ports"], key=lambda p: p["host_port"])
    assert web == {
        "proto": "tcp",
        "host_ip": "0.0.0.0",
        "host_port": 8080,
        "container_ip": made.address.split("/")[0],
        "container_port": 80,
        "endpoint": made.id,
        "network": made.net.id,
        "sandbox": f"/var/run/docker/netns/{made.id[:12]}",
        "published": True,
        "held": True,
    }
    assert (dns["host_ip"], dns["proto"], dns["published"], dns["held"]) == (
        "192.168.1.5", "udp", True, True,
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "flag"), [(FirewallEntry, "published"), (PortSocket, "held")])
def test_what_is_lost_is_not_claimed(
    on: Setting, made: Container, kind: type[FirewallEntry] | type[PortSocket], flag: str
) -> None:
    on.bench.nft.lose(kind)
    on.bench.ports.lose(kind)
    on.bench.woken()
    found = document(on.bench.core)["ports"]
    assert on.bench.woken(), "who looks at a disturbed firewall must not keep a pass from it"
    assert [p[flag] for p in found if p["endpoint"] == made.id] == [False, False]
    add_names(found, Names())
    assert f"not {flag}: " in render(found)
    on.bench.passes(1)
    assert all(p[flag] for p in document(on.bench.core)["ports"])


def test_a_container_is_found_by_name_and_by_ids(on: Setting, made: Container) -> None:
    beside = on.docker.start(made.net, port(80, 8081))
    found = document(on.bench.core)["ports"]
    add_names(found, docker_knows(web=made, web2=beside))
    for what in ("web", made.id, made.id[:12], f"/var/run/docker/netns/{made.id[:12]}"):
        assert {p["endpoint"] for p in of(found, what)} == {made.id}, what
    assert len(of(found, "c0ffee")) == 3
    with pytest.raises(UnknownObject):
        of(found, "we")
    add_names(found, Names())
    with pytest.raises(UnknownObject):
        of(found, "web")
    assert len(of(found, made.id[:12])) == 2


def test_a_line_for_each_port(on: Setting, made: Container) -> None:
    found = document(on.bench.core)["ports"]
    add_names(found, docker_knows(web=made))
    ip = made.address.split("/")[0]
    assert [line.split() for line in render(found).splitlines()] == [
        ["PORT", "CONTAINER", "ENDPOINT", "PROBLEM"],
        [f"0.0.0.0:8080->{ip}:80/tcp", "web", made.id[:12]],
        [f"192.168.1.5:53->{ip}:53/udp", "web", made.id[:12]],
    ]
    assert render([]).split() == ["PORT", "CONTAINER", "ENDPOINT", "PROBLEM"]


def test_over_http_and_on_the_command_line(
    on: Setting, made: Container, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = on.plugin.client.get("/ports").data
    path = str(serve(http(reply)))
    assert main(["flannel", "ports", made.id[:12], "--format", "json", "--socket", path]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(p["host_port"], p["name"]) for p in shown] == [(53, None), (8080, None)]


def test_no_such_container(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    path: Path = serve(http(b'{"ports": []}'))
    told = refusal(capsys, "ports", "web", "--socket", str(path))
    assert "no published port belongs to 'web'" in told


def test_a_chosen_port_is_logged_and_kept_when_docker_asks_again(
    on: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "driver.api.endpoints")
    wishes = (port(80), port(443, 8443), port(81, 9000, 9009))
    made = on.docker.start(on.docker.create_network(), *wishes)
    chosen = [p for p in on.ports_of(made.id) if ":8443->" not in p]
    told = [r.getMessage() for r in caplog.records]
    assert sorted(told) == sorted(f"endpoint {made.id[:12]} has host port {p}" for p in chosen)
    before = on.ports_of(made.id)
    for _ in range(5):
        on.docker.publish(made, *wishes)
        assert sorted(on.ports_of(made.id)) == sorted(before)
    on.bench.assert_agrees()
