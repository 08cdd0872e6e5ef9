"""Networks of one host do not see one another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.bed import Host
from tests.e2e.helpers import address, container, gets, network, pings, web


def assert_closed(host: Host, *ways: tuple[str, str]) -> None:
    """No container gets an answer from an address; all ask at once, for some seconds."""

    def answered(way: tuple[str, str]) -> bool:
        name, other = way
        return pings(host, name, other) or gets(host, name, f"http://{other}/") != ""

    with ThreadPoolExecutor() as asking:
        assert not any(asking.map(answered, ways))


def test_between_two_flannel_networks(host: Host) -> None:
    network(host, "a")
    network(host, "b")
    one, two = web(host, "one", "a"), web(host, "two", "b")
    container(host, "near", "a")
    assert gets(host, "near", f"http://{one}/") == "one", "its own network is open"
    assert_closed(host, ("one", two), ("two", one))


@pytest.mark.each_backend
def test_between_flannel_and_docker0(host: Host) -> None:
    network(host, "a")
    one, plain = web(host, "one", "a"), web(host, "plain", "bridge")
    container(host, "beside", "bridge")
    assert gets(host, "beside", f"http://{plain}/") == "plain", "docker0 itself is open"
    assert_closed(host, ("one", plain), ("plain", one))


def test_between_flannel_and_another_bridge_network(host: Host) -> None:
    network(host, "a")
    host.docker("network", "create", "plain")
    one, two = web(host, "one", "a"), web(host, "two", "plain")
    assert_closed(host, ("one", two), ("two", one))
    assert address(host, "two", "plain") == two


def test_the_host_reaches_its_containers(host: Host) -> None:
    network(host, "a")
    assert host.fetch(f"http://{web(host, 'one', 'a')}/").strip() == "one"
