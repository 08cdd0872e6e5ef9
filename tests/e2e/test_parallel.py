"""Many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.bed import Host
from tests.e2e.helpers import container, network

MANY = 50


def test_fifty_address_requests_at_once(host: Host) -> None:
    _, pool = host.call("IpamDriver.RequestPool", {"Pool": "10.2.12.0/24", "Options": {}})
    body = {"PoolID": pool["PoolID"], "Address": "", "Options": None}
    with ThreadPoolExecutor(MANY) as threads:
        replies = list(
            threads.map(lambda _: host.call("IpamDriver.RequestAddress", body), range(MANY))
        )
    assert {status for status, _ in replies} == {200}
    assert len({answer["Address"] for _, answer in replies}) == MANY
    host.call("IpamDriver.ReleasePool", {"PoolID": pool["PoolID"]})


def test_networks_and_containers_at_once(host: Host) -> None:
    names = [f"net{n}" for n in range(6)]
    with ThreadPoolExecutor(6) as threads:
        blocks = list(threads.map(lambda name: network(host, name), names))
        assert len(set(blocks)) == len(names)
        pairs = [(f"{name}-{n}", name) for name in names for n in range(3)]
        addresses = list(threads.map(lambda pair: container(host, *pair), pairs))
        assert len(set(addresses)) == len(pairs)
        list(threads.map(lambda pair: host.docker("rm", "-f", pair[0]), pairs))
