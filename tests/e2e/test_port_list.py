"""What `docker flannel ports` tells is what is so."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.bed import Host, wait_for
from tests.e2e.helpers import container, inspect, network, web


def listed(host: Host, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        host.docker("flannel", "ports", "--format", "json", *words).stdout
    )
    return found


@pytest.mark.usefixtures("cli")
def test_the_ports_of_containers_by_name_and_id(host: Host) -> None:
    network(host, "app")
    assert listed(host) == []
    ip = web(host, "one", "app", "-p", "8080:80", "-p", "127.0.0.1:9000-9001:80", "-p", "443")
    container(host, "two", "app", "-p", "53:53/udp", "-p", "9999:9999/sctp")
    facts = inspect(host, "container", "one")
    assert {(p["proto"], p["host_port"]) for p in listed(host, "two")} == {
        ("udp", 53),
        ("sctp", 9999),
    }
    ports = listed(host, "one")
    assert len(ports) == 3
    assert all(p["published"] and p["held"] and p["container_ip"] == ip for p in ports)
    assert {p["container"] for p in ports} == {facts["Id"]}
    assert {p["sandbox"] for p in ports} == {facts["NetworkSettings"]["SandboxKey"]}
    assert listed(host, facts["Id"][:12]) == ports
    (web_port,) = (p for p in ports if p["host_ip"] == "127.0.0.1")
    wait_for(lambda: host.reaches(f"http://127.0.0.1:{web_port['host_port']}/"), "the chosen port")
    (chosen,) = (p for p in ports if p["container_port"] == 443)
    assert f"has host port 0.0.0.0:{chosen['host_port']}->443/tcp" in host.plugin_log()
    text = host.docker("flannel", "ports", "two").stdout
    assert [line.split()[1] for line in text.splitlines()] == ["CONTAINER", "two", "two"]
    unknown = host.docker("flannel", "ports", "three", check=False)
    assert "no published port belongs to 'three'" in unknown.stderr


@pytest.mark.usefixtures("cli")
def test_what_is_listed_as_lost_is_repaired(host: Host) -> None:
    network(host, "app")
    web(host, "one", "app", "-p", "8080:80")
    wait_for(lambda: host.reaches("http://127.0.0.1:8080/"), "the port")
    for _ in range(3):
        host.run("nft", "flush", "map", "inet", "docker_flannel", "pub4_any")
        for _ in range(3):
            listed(host)
        wait_for(lambda: host.reaches("http://127.0.0.1:8080/", 1), "the port again", 10)


def test_without_docker_ids_alone_work(host: Host) -> None:
    network(host, "app")
    web(host, "one", "app", "-p", "8080:80")
    endpoint = inspect(host, "container", "one")["NetworkSettings"]["Networks"]["app"]["EndpointID"]
    hidden = "mount --bind /dev/null /run/docker.sock && exec"
    shown = host.run(
        *("unshare", "-m", "sh", "-c", f'{hidden} "$@"', "sh"),
        *(sys.executable, "-m", "driver", "ports", endpoint[:12], "--format", "json"),
    )
    (port,) = json.loads(shown.stdout)
    assert (port["name"], port["held"], port["host_port"]) == (None, True, 8080)
