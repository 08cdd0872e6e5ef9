"""What is refused: with which words, and that no trace of it is left."""

from __future__ import annotations

from typing import Any

import pytest

from driver.errors import HostError, StoreError
from tests.unit.bench import make_core
from tests.unit.docker import Docker, port, portmap
from tests.unit.plugin import Plugin

NEW = "f" * 64
NET, END = "000000000001".ljust(64, "0"), "000000000002".ljust(64, "0")
GENERIC = "com.docker.network.generic"
BLOCK = {"AddressSpace": "flannel", "Pool": "10.2.0.64/27", "Gateway": "10.2.0.65/27"}
CREATE = {"NetworkID": NEW, "Options": {}, "IPv4Data": [BLOCK], "IPv6Data": []}
INTERFACE = {"Address": "10.2.0.9/27", "AddressIPv6": "", "MacAddress": ""}
ATTACH = {"NetworkID": NET, "EndpointID": NEW, "Interface": INTERFACE}
JOIN = {"NetworkID": NET, "EndpointID": END, "SandboxKey": "/x"}
PUBLISH = {"NetworkID": NET, "EndpointID": END}
OPTIONS = (
    "com.docker.network.driver.mtu, com.docker.network.bridge.enable_ip_masquerade, "
    "com.docker.network.container_iface_prefix, flannel.size, flannel.publish, flannel.sources"
)

POOL, ADDRESS = "IpamDriver.RequestPool", "IpamDriver.RequestAddress"
NETWORK, ENDPOINT = "NetworkDriver.CreateNetwork", "NetworkDriver.CreateEndpoint"
JOINS, PROGRAM = "NetworkDriver.Join", "NetworkDriver.ProgramExternalConnectivity"
NO_IPV6 = "IPv6 was asked for, but this host's flannel lease has no IPv6 subnet"

CASES: list[tuple[str, dict[str, Any], int, str]] = [
    (POOL, {"V6": True}, 400, NO_IPV6),
    (POOL, {"AddressSpace": "LocalDefault"}, 400, "AddressSpace 'LocalDefault' is not 'flannel'"),
    (POOL, {"SubPool": "10.2.0.64/28"}, 400, "--ip-range 10.2.0.64/28 needs a --subnet"),
    (POOL, {"Pool": "10.9.0.0/24"}, 400, "subnet 10.9.0.0/24 is not inside this host's flannel"),
    (POOL, {"Pool": "10.2.0.1/27"}, 400, "has host bits set"),
    (POOL, {"Pool": "10.2.0.0/28"}, 409, "overlaps 10.2.0.0/27 of network 000000000001"),
    (POOL, {"Options": {"flannel.size": "/40"}}, 400, "flannel.size /40 is not between /24 and"),
    (POOL, {"Options": {"flannel.size": "/24"}}, 409, "has no free block of /24; it is held by"),
    (POOL, {"Options": {"flannel.sice": "/26"}}, 400,
     "option --ipam-opt 'flannel.sice' is unknown; these are known: flannel.size"),
    (ADDRESS, {"PoolID": "10.2.0.0/27/nonsense"}, 400, "pool 10.2.0.0/27/nonsense is not"),
    (ADDRESS, {"PoolID": "$pool", "Address": "10.2.0.1"}, 409, "is the gateway of 10.2.0.0/27"),
    (ADDRESS, {"PoolID": "$pool", "Address": "10.2.0.2"}, 409, "is already in use"),
    (ADDRESS, {"PoolID": "$pool", "Address": "10.2.1.2"}, 400, "is not inside the network's"),
    (NETWORK, {**CREATE, "Options": {"com.docker.network.enable_ipv6": True}}, 400, NO_IPV6),
    (NETWORK, {**CREATE, "IPv6Data": [{}]}, 400, NO_IPV6),
    (NETWORK, {**CREATE, "IPv4Data": []}, 400, "has 0 IPv4 subnets; it can have exactly one"),
    (NETWORK, {**CREATE, "IPv4Data": [BLOCK, BLOCK]}, 400, "has 2 IPv4 subnets"),
    (NETWORK, {**CREATE, "IPv4Data": [{**BLOCK, "Gateway": ""}]}, 400, "IPv4Data.Gateway is mis"),
    (NETWORK, {**CREATE, "IPv4Data": [{**BLOCK, "Pool": ""}]}, 400, "IPv4Data.Pool is missing"),
    (NETWORK, {**CREATE, "IPv4Data": [{**BLOCK, "Gateway": "10.2.0.1/27"}]}, 400,
     "gateway 10.2.0.1/27 is not of the network's subnet 10.2.0.64/27"),
    (NETWORK, {**CREATE, "IPv4Data": [{**BLOCK, "Pool": "10.2.0.96/27"}]}, 400,
     "subnet 10.2.0.96/27 was not given out by this plugin's IPAM"),
    (NETWORK, {**CREATE, "IPv4Data": [{**BLOCK, "Pool": "10.2.0.0/27"}]}, 400, "was not given out"),
    (NETWORK, {**CREATE, "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "10.2.4.0/24",
                                       "Gateway": "10.2.4.1/24"}]}, 400,
     "subnet 10.2.4.0/24 overlaps the flannel network 10.2.0.0/16 and is not inside this host's"),
    (NETWORK, {**CREATE, "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "10.0.0.0/8",
                                       "Gateway": "10.0.0.1/8"}]}, 400,
     "subnet 10.0.0.0/8 overlaps the flannel network 10.2.0.0/16"),
    (NETWORK, {**CREATE, "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "172.18.0.0/16",
                                       "Gateway": "172.19.0.1/16"}]}, 400,
     "gateway 172.19.0.1/16 is not of the network's subnet 172.18.0.0/16"),
    (NETWORK, {**CREATE, "Options": {GENERIC: {"flannel.size": "/28"}}}, 400,
     "option -o flannel.size is for networks without IPAM; use --ipam-opt flannel.size"),
    (NETWORK, {**CREATE, "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "10.2.0.0/28",
                                       "Gateway": "10.2.0.1/28"}]}, 409, "overlaps 10.2.0.0/27"),
    (NETWORK, {**CREATE, "Options": {GENERIC: {"vlan": "7"}}}, 400,
     f"option -o 'vlan' is unknown; these are known: {OPTIONS}"),
    (NETWORK, {**CREATE, "Options": {GENERIC: {"com.docker.network.driver.mtu": "9"}}}, 400,
     "option com.docker.network.driver.mtu '9' is not a number from 576 to 65535"),
    (NETWORK, {**CREATE, "NetworkID": NET, "IPv4Data": [{**BLOCK, "Pool": "10.2.0.0/27",
                                                         "Gateway": "10.2.0.3/27"}]}, 409,
     "network 000000000001 exists already, with other settings"),
    (ENDPOINT, {**ATTACH, "NetworkID": NEW}, 400, "network ffffffffffff is not known"),
    (ENDPOINT, {**ATTACH, "Interface": {**INTERFACE, "Address": ""}}, 400,
     "Interface.Address is empty"),
    (ENDPOINT, {**ATTACH, "Interface": {**INTERFACE, "AddressIPv6": "fd00::2/64"}}, 400,
     "the endpoint has an IPv6 address"),
    (ENDPOINT, {**ATTACH, "Interface": {**INTERFACE, "Address": "10.2.9.2/27"}}, 400,
     "Interface.Address 10.2.9.2/27 is not inside the network's 10.2.0.0/27"),
    (ENDPOINT, {**ATTACH, "Interface": {**INTERFACE, "Address": "10.2.0.2/27"}}, 409,
     "address 10.2.0.2 is in use by endpoint 000000000002"),
    (ENDPOINT, {**ATTACH, "EndpointID": END}, 409,
     "endpoint 000000000002 exists already, with other settings"),
    (JOINS, {**JOIN, "NetworkID": NEW}, 400, "network ffffffffffff is not known"),
    (JOINS, {**JOIN, "EndpointID": NEW}, 400, "endpoint ffffffffffff is not known"),
    (JOINS, {**JOIN, "SandboxKey": ""}, 400, 'SandboxKey "" is not a text'),
    (PROGRAM, {**PUBLISH, "EndpointID": NEW, "Options": portmap(port(80, 8080))}, 400,
     "endpoint ffffffffffff is not known"),
    (PROGRAM, {**PUBLISH, "Options": portmap(port(80, 8080, host="::1"))}, 400, "is IPv6"),
    (PROGRAM, {**PUBLISH, "Options": portmap(port(80, 8080, proto=1))}, 400, "protocol number 1"),
    (PROGRAM, {**PUBLISH, "Options": portmap(port(80, 9001), port(80, 9001))}, 409,
     "Bind for 0.0.0.0:9001 failed: port is already allocated"),
    (PROGRAM, {**PUBLISH, "Options": portmap(port(80, 9000), port(81, 7000, 7001))}, 409,
     "Bind for 0.0.0.0:9000 failed: port is already allocated"),
]  # fmt: skip


def test_the_words_and_no_trace() -> None:
    bench = make_core()
    docker = Docker(bench)
    net = docker.create_network()
    docker.start(net, port(80, 8080))
    docker.start(docker.create_network(), port(80, 9000))
    bench.call(POOL, Pool="10.2.0.64/27")
    plugin = Plugin(bench.core)
    before = bench.state, bench.observed(), dict(bench.journal.rows)
    failures = []
    for method, body, status, words in CASES:
        sent = {k: net.pool if v == "$pool" else v for k, v in body.items()}
        got, message = plugin.refusal(method, sent)
        if got != status or words not in message:
            failures.append((method, body, got, message))
        assert (bench.state, bench.observed(), dict(bench.journal.rows)) == before, (method, body)
    assert not failures


LIFE = ["IpamDriver.RequestPool", ADDRESS, NETWORK, ENDPOINT, JOINS, PROGRAM]


@pytest.mark.parametrize("what", ["adapter", "journal"])
def test_a_host_or_journal_that_fails_leaves_no_trace(what: str) -> None:
    bench = make_core()
    docker = Docker(bench)
    net = docker.create_network()
    made = docker.start(net, port(80, 8080))
    free = bench.call(POOL, Pool="10.2.0.64/27")["PoolID"]
    plugin = Plugin(bench.core)
    before = bench.state, bench.observed(), dict(bench.journal.rows)
    for adapter in bench.adapters:
        adapter.refuse = (lambda _: HostError("no")) if what == "adapter" else adapter.refuse
    bench.journal.error = StoreError("no") if what == "journal" else None
    bodies = {
        POOL: {"Pool": "10.2.0.96/27"},
        ADDRESS: {"PoolID": free},
        NETWORK: CREATE,
        ENDPOINT: ATTACH,
        JOINS: {**JOIN, "NetworkID": net.id, "EndpointID": made.id, "SandboxKey": "/y"},
        PROGRAM: {**PUBLISH, "NetworkID": net.id, "EndpointID": made.id},
    }
    bodies[PROGRAM]["Options"] = portmap(port(80, 8081))
    for method in LIFE:
        if what == "adapter" and method in (POOL, ADDRESS, JOINS):
            continue  # these change nothing on the host
        assert plugin.refusal(method, bodies[method]) == (500, "no"), method
    for adapter in bench.adapters:
        adapter.refuse = lambda _: None
    bench.core.converge()
    assert (bench.state, bench.observed(), dict(bench.journal.rows)) == before
    bench.journal.error = None
    for method in LIFE:
        plugin.call(method, bodies[method])
    bench.assert_agrees()


def test_a_lease_that_is_not_there_yet_is_503() -> None:
    bench = make_core()
    bench.core.state = type(bench.state)()
    status, message = Plugin(bench.core).refusal(POOL, {})
    assert (status, message.split(":")[0]) == (503, "this host has no flannel lease yet")
