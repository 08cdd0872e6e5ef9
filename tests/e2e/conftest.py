"""One host with dockerd and the plugin, shared by a module's tests; each test checks for leaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bed import Bed, Host, Node, assert_no_leaks
from tests.e2e.helpers import BACKENDS, add_cli_plugin, docker_major, settings
from tests.e2e.leaving import MAY_DIFFER, baseline, tidy
from tests.e2e.outage import World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked so on each backend of the firewall, every other one on nft."""
    if "backend" not in metafunc.fixturenames:
        return
    if metafunc.definition.get_closest_marker("each_backend"):
        metafunc.parametrize("backend", BACKENDS, scope="module")
    else:
        metafunc.parametrize("backend", BACKENDS[:1], ids=[pytest.HIDDEN_PARAM], scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Yield a test bed that is gone after the module."""
    with Bed() as made:
        yield made


@pytest.fixture(scope="module")
def running(bed: Bed, backend: str) -> Host:
    """Return a host with the plugin, on a backend of the firewall, dockerd and the image."""
    host = bed.host(f"h{BACKENDS.index(backend) + 1}")
    if backend == "iptables-legacy":
        for name in ("iptables", "ip6tables"):
            host.run("update-alternatives", "--set", name, f"/usr/sbin/{name}-legacy")
    host.start_plugin(settings(backend))
    host.start_dockerd()
    host.load_image()
    # what the first network makes and no later one: tables that iptables instantiates, and such
    host.docker("network", "create", "-d", "flannel", "--ipam-driver", "flannel", "first")
    host.docker("run", "--rm", "--network", "first", "-p", "7:7", "box", "true")
    host.docker("run", "--rm", "-p", "7:7", "box", "true")
    host.docker("network", "rm", "first")
    return host


@pytest.fixture(scope="module")
def machine(bed: Bed) -> Iterator[Host]:
    """Return a host to switch off and on."""
    made = bed.host("machine")
    made.start_plugin()
    made.start_dockerd()
    made.load_image()
    yield made
    made.power_off()


@pytest.fixture
def two(world: World) -> Iterator[World]:
    """Return a world, which the module makes, with two hosts that have leases and nothing else."""
    with world.fresh():
        yield world


@pytest.fixture(scope="module")
def visitor(bed: Bed) -> Node:
    """Return another machine on the host's LAN."""
    return bed.client("visitor")


@pytest.fixture
def host(running: Host) -> Iterator[Host]:
    """Yield the running host; the test has to leave it as it was."""
    before = baseline(running)
    yield running
    tidy(running)
    assert_no_leaks(running, before, ignore=MAY_DIFFER)


@pytest.fixture
def cli(host: Host) -> Host:
    """Return the running host, with the plugin of its docker command."""
    add_cli_plugin(host)
    return host


@pytest.fixture
def since_28(running: Host) -> bool:
    """Whether Docker is one that can leave IPv4 to the driver."""
    return docker_major(running) >= 28
