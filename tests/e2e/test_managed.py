"""The managed plugin through its life: real Docker, a registry, etcd, two hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import pages
from tests.bed import wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e import managed
from tests.e2e.helpers import SERVE, SERVICES, container, gets, inspect, pings, web
from tests.e2e.managed import NAME, SOCKET, STATE, conversation
from tests.e2e.overlay import World, empty_world, lease, own

STACK = (
    SERVICES
    + """\
networks:
  default:
    driver: flannel
    ipam: {driver: flannel}
"""
)


@pytest.fixture(scope="module")
def two() -> Iterator[World]:
    """Yield two hosts with the managed plugin, each installed by one command."""
    with empty_world("vxlan") as world:
        storage = world.bed.folder / "registry"
        folder = managed.built()
        for name in ("h1", "h2"):
            host = world.host(name)
            host.start_dockerd()
            host.load_image()
            managed.serve_registry(host, storage)
            if name == "h1":
                managed.publish(host, folder)
            [line] = pages.commands("docs/install.md", "As a managed plugin")
            line = line.replace("registry.example", managed.REGISTRY)
            host.docker(*line.replace("https://192.0.2.1:2379", world.url).split()[1:])
            world.populate(host)
            managed.serve_lines(host, own(host))
        yield world


def test_the_plain_name_leads_to_the_managed_plugin(two: World) -> None:
    for host in two.hosts:
        shown = managed.plugin(host)
        assert shown["Enabled"]
        assert shown["Name"] == f"{NAME}:latest"
        assert inspect(host, "network", "app")["Driver"] == "flannel"
        assert inspect(host, "network", "app")["IPAM"]["Driver"] == "flannel"
        for path in (SOCKET, f"/run/docker/plugins/{shown['Id']}/flannel.sock"):
            assert host.path(path).stat().st_mode & 0o7777 == 0o600
        assert managed.status(host)["problems"] == []
    two.all_reach_all("tcp")
    two.all_reach_all("udp")


def test_compose_with_a_published_port(two: World) -> None:
    one, other = two.hosts
    folder = one.folder / "stack"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(STACK)
    one.compose("up", "-d", cwd=folder)
    url = f"http://{one.address}:8080/"
    wait_for(lambda: two.etcd.reaches(url), "the port")
    assert gets(other, own(other), url) == "box"
    assert one.fetch("http://127.0.0.1:8080/").strip() == "box"
    one.compose("down", cwd=folder)
    assert not one.reaches(url)


def test_disabled_and_enabled(two: World) -> None:
    one, other = two.hosts
    web(one, "web", "app", "-p", "8081:80")
    url = f"http://{one.address}:8081/"
    wait_for(lambda: other.reaches(url), "the port")
    with conversation(other, own(other), two.ips[one.name]) as talk:
        one.docker("plugin", "disable", "--force", NAME)
        assert not one.path(SOCKET).exists()
        assert other.reaches(url)
        managed.more(talk)
        one.docker("plugin", "enable", NAME)
    assert pings(one, own(one), container(one, "new", "app"))
    one.docker("rm", "-f", "web", "new")
    assert not other.reaches(url)


def test_upgraded_under_an_open_connection(two: World) -> None:
    one, other = two.hosts
    before = managed.plugin(one)
    with (
        conversation(one, own(one), two.ips[other.name]),
        conversation(other, own(other), two.ips[one.name]),
    ):
        one.docker("plugin", "disable", "--force", NAME)
        options = ("--grant-all-permissions", "--skip-remote-check", NAME)
        one.docker("plugin", "upgrade", *options, f"{managed.REFERENCE}:next")
        one.docker("plugin", "enable", NAME)
    after = managed.plugin(one)
    assert after["Id"] == before["Id"]
    assert before["Config"]["Description"] != "next"
    assert after["Config"]["Description"] == "next"
    assert sorted(after["Settings"]["Env"]) == sorted(before["Settings"]["Env"])
    assert managed.status(one)["problems"] == []
    two.all_reach_all()
    assert pings(one, own(one), container(one, "new", "app"))
    one.docker("rm", "-f", "new")


def test_from_service_to_managed_and_back(two: World) -> None:
    one, other = two.hosts
    settings = {"DOCKER_FLANNEL_STATE_DIR": STATE, "FLANNELD_ETCD_ENDPOINTS": two.url}
    subnet = lease(one)["subnet"]
    web(one, "web", "app", "-p", "8081:80")
    url = f"http://{one.address}:8081/"
    with conversation(one, own(one), two.ips[other.name]):
        refused = one.run(*SERVE, env=settings, cwd=PROJECT, check=False)
        assert f"another docker-flannel works on {STATE}; stop it first (the managed" in (
            refused.stderr
        )
        elsewhere = {**settings, "DOCKER_FLANNEL_STATE_DIR": str(one.state_dir)}
        refused = one.run(*SERVE, env=elsewhere, cwd=PROJECT, check=False)
        assert f"another process serves {SOCKET}; stop it first (process " in refused.stderr

        one.docker("plugin", "disable", "--force", NAME)
        one.start_plugin(settings)
        works(two, subnet, url)
        assert not one.docker("plugin", "enable", NAME, check=False).ok
        assert one.dockerd is not None
        said = f"another docker-flannel works on {STATE}; stop it first (process "
        wait_for(lambda: said in one.dockerd.log(), "the refusal in dockerd's log")  # type: ignore[union-attr]
        works(two, subnet, url)

        one.stop_plugin()
        one.docker("plugin", "enable", NAME)
        works(two, subnet, url)
    one.docker("rm", "-f", "web")


def works(world: World, subnet: str, url: str) -> None:
    """See that old and new containers of the first host work, on the same lease."""
    one, other = world.hosts
    assert lease(one)["subnet"] == subnet
    wait_for(lambda: other.reaches(url), "the port")
    assert pings(one, own(one), container(one, "new", "app"))
    assert pings(other, own(other), world.ips[one.name])
    one.docker("rm", "-f", "new")


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_dockerd_restarts_and_containers_come_back(two: World, how: str) -> None:
    one, other = two.hosts
    web(one, "web", "app", "-p", "8081:80", "--restart", "always")
    url = f"http://{one.address}:8081/"
    wait_for(lambda: other.reaches(url), "the port")
    if how == "killed":
        one.kill_dockerd()
    one.restart_dockerd()
    wait_for(lambda: other.reaches(url), "the port of the container that came back")
    assert managed.plugin(one)["Enabled"]
    one.docker("start", own(one))
    two.ips[one.name] = inspect(one, "container", own(one))["NetworkSettings"]["Networks"]["app"][
        "IPAddress"
    ]
    two.serve(one)
    managed.serve_lines(one, own(one))
    two.all_reach_all()
    one.docker("rm", "-f", "web")
