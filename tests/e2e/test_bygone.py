"""A network that Docker does not have is forgotten soon after the plugin's start."""

from __future__ import annotations

from tests.bed import Host, wait_for
from tests.e2e.helpers import container, network, status


def test_a_network_removed_unheard(host: Host) -> None:
    """`docker network rm` waits 45 s for a plugin that is off, so here Docker never had it."""
    block = network(host, "kept")
    container(host, "box", "kept")
    asked = {"AddressSpace": "flannel", "Pool": "", "SubPool": "", "Options": {}, "V6": False}
    status_code, pool = host.call("IpamDriver.RequestPool", asked)
    assert status_code == 200, pool
    wish = {"RequestAddressType": "com.docker.network.gateway"}
    asked = {"PoolID": pool["PoolID"], "Address": "", "Options": wish}
    _, gateway = host.call("IpamDriver.RequestAddress", asked)
    data = {"AddressSpace": "flannel", "Pool": pool["Pool"], "Gateway": gateway["Address"]}
    made = {"NetworkID": "f" * 64, "Options": {}, "IPv4Data": [data]}
    assert host.call("NetworkDriver.CreateNetwork", made) == (200, {})
    assert len(status(host)["networks"]) == 2
    host.stop_plugin()
    host.start_plugin()
    wait_for(lambda: len(status(host)["networks"]) == 1, "the network to be forgotten")
    assert status(host)["networks"][0]["block"] == str(block)
    assert status(host)["blocks_of_others"] == []
    assert "network ffffffffffff is forgotten: Docker does not list it" in host.plugin_log()
    assert len(status(host)["endpoints"]) == 1
