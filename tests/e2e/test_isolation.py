"""Networks of one host do not see one another."""

from __future__ import annotations

import pytest

from tests.bed import Host
from tests.e2e.helpers import address, container, gets, network, pings, web


def test_between_two_flannel_networks(host: Host) -> None:
    network(host, "a")
    network(host, "b")
    one, two = web(host, "one", "a"), web(host, "two", "b")
    container(host, "near", "a")
    assert gets(host, "near", f"http://{one}/") == "one", "its own network is open"
    for name, other in (("one", two), ("two", one)):
        assert not pings(host, name, other)
        assert gets(host, name, f"http://{other}/") == ""


@pytest.mark.each_backend
def test_between_flannel_and_docker0(host: Host) -> None:
    network(host, "a")
    one, plain = web(host, "one", "a"), web(host, "plain", "bridge")
    container(host, "beside", "bridge")
    assert gets(host, "beside", f"http://{plain}/") == "plain", "docker0 itself is open"
    for name, other in (("one", plain), ("plain", one)):
        assert not pings(host, name, other)
        assert gets(host, name, f"http://{other}/") == ""


def test_between_flannel_and_another_bridge_network(host: Host) -> None:
    network(host, "a")
    host.docker("network", "create", "plain")
    one, two = web(host, "one", "a"), web(host, "two", "plain")
    assert not pings(host, "one", two)
    assert not pings(host, "two", one)
    assert address(host, "two", "plain") == two


def test_the_host_reaches_its_containers(host: Host) -> None:
    network(host, "a")
    assert host.fetch(f"http://{web(host, 'one', 'a')}/").strip() == "one"
