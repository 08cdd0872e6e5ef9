"""Every field of every call, sent with a wrong type or a strange id: refused, and nothing done."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from driver.handlers import CALLS
from tests.unit.bench import Bench, make_core
from tests.unit.docker import Docker, port
from tests.unit.plugin import Plugin

PORTMAP = "com.docker.network.portmap"
GENERIC = "com.docker.network.generic"
NEW = "f" * 64
# Fields that are sent and have no meaning here; a wrong type in them does no harm.
IGNORED = {
    "NetworkDriver.CreateEndpoint.Options",
    "NetworkDriver.Join.Options",
    "NetworkDriver.ProgramExternalConnectivity.NetworkID",
    f"NetworkDriver.ProgramExternalConnectivity.Options.{PORTMAP}.0.IP",
    "NetworkDriver.Leave.NetworkID",
    "NetworkDriver.RevokeExternalConnectivity.NetworkID",
    "NetworkDriver.DeleteEndpoint.NetworkID",
    "NetworkDriver.CreateNetwork.Options.com.docker.network.enable_ipv4",
}


def prepared() -> tuple[Bench, dict[str, dict[str, Any]]]:
    """Return a bench with a network, a container and a free pool, and a good body for each call."""
    bench = make_core()
    docker = Docker(bench)
    net = docker.create_network()
    made = docker.start(net, port(80, 8080))
    pool = bench.call("IpamDriver.RequestPool", Pool="10.2.0.64/27")
    ids = {"NetworkID": net.id, "EndpointID": made.id}
    reserved = docker.address(net, "10.2.0.9")
    return bench, {
        "NetworkDriver.CreateNetwork": {
            "NetworkID": NEW,
            "Options": {
                "com.docker.network.enable_ipv4": True,
                "com.docker.network.enable_ipv6": False,
                "com.docker.network.internal": True,
                GENERIC: {"com.docker.network.driver.mtu": "1400"},
            },
            "IPv4Data": [
                {
                    "AddressSpace": "flannel",
                    "Pool": "10.2.0.64/27",
                    "Gateway": "10.2.0.65/27",
                    "AuxAddresses": {"router": "10.2.0.66/27"},
                }
            ],
            "IPv6Data": [],
        },
        "NetworkDriver.DeleteNetwork": {"NetworkID": net.id},
        "Upkeep.Forget": {"What": "10.2.0.64/27"},
        "NetworkDriver.CreateEndpoint": {
            "NetworkID": net.id,
            "EndpointID": NEW,
            "Interface": {"Address": reserved, "AddressIPv6": "", "MacAddress": ""},
            "Options": {},
        },
        "NetworkDriver.DeleteEndpoint": ids,
        "NetworkDriver.Join": {**ids, "SandboxKey": "/run/x", "Options": {}},
        "NetworkDriver.Leave": ids,
        "NetworkDriver.ProgramExternalConnectivity": {
            **ids,
            "Options": {PORTMAP: [port(81, 8081)]},
        },
        "NetworkDriver.RevokeExternalConnectivity": ids,
        "IpamDriver.RequestPool": {
            "AddressSpace": "flannel",
            "Pool": "10.2.0.96/27",
            "SubPool": "10.2.0.112/28",
            "Options": {"flannel.size": "/27"},
            "V6": False,
        },
        "IpamDriver.ReleasePool": {"PoolID": pool["PoolID"]},
        "IpamDriver.RequestAddress": {
            "PoolID": pool["PoolID"],
            "Address": "10.2.0.65",
            "Options": {"RequestAddressType": "com.docker.network.gateway"},
        },
        "IpamDriver.ReleaseAddress": {"PoolID": net.pool, "Address": "10.2.0.2"},
    }


GOOD = prepared()[1]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List the ways to every value inside a body."""
    if path:
        yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, (*path, name))


def wrong_for(value: Any) -> list[Any]:
    match value:
        case bool():
            return ["true", 1, [], {}]
        case int():
            return ["80", True, 1.5, [], {}]
        case str():
            return [7, True, [], {}, ["x"]]
        case dict():
            return ["x", 7, True, [], [{}]]
        case _:
            return ["x", 7, True, {}, ["x"], [7]]


def changed(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    new = copy.deepcopy(body)
    inner: Any = new
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return new


PATHS = [(call, path) for call, body in GOOD.items() for path in leaves(body)]
IDS = [".".join(map(str, (call, *path))) for call, path in PATHS]


def test_every_call_that_reads_a_body_is_here() -> None:
    assert set(CALLS) - set(GOOD) == {
        "NetworkDriver.AllocateNetwork",
        "NetworkDriver.FreeNetwork",
        "Upkeep.Adopt",  # it is told of many objects, and tells of each what is wrong
    }
    assert set(IDS) >= IGNORED


@pytest.mark.parametrize("call", GOOD)
def test_the_good_bodies_are_good_and_unknown_fields_do_no_harm(call: str) -> None:
    for extra in ({}, {"Newer": {"a": [1]}, "Name": None}):
        bench, bodies = prepared()
        Plugin(bench.core).call(call, {**bodies[call], **extra})
        bench.assert_agrees()


@pytest.mark.parametrize(("call", "path"), PATHS, ids=IDS)
def test_a_wrong_type_is_refused_by_name(call: str, path: tuple[Any, ...]) -> None:
    bench, bodies = prepared()
    plugin, before = Plugin(bench.core), (bench.state, bench.observed())
    value: Any = bodies[call]
    for name in path:
        value = value[name]
    for wrong in wrong_for(value):
        body = changed(bodies[call], path, wrong)
        if any(".".join(map(str, (call, *path[:n]))) in IGNORED for n in range(1, 10)):
            plugin.call(call, body)
            continue
        status, message = plugin.refusal(call, body)
        assert status == 400, (wrong, message)
        names = [str(name) for name in path if isinstance(name, str)]
        assert names[-1] in message, (wrong, message)
        assert (bench.state, bench.observed()) == before


STRANGE = [
    "",
    "a" * 300,
    "A" * 64,
    "../" * 20,
    "a/" * 20,
    "..",
    "ä" * 64,
    "a" * 63 + "\n",
    "a" * 11,
]


@pytest.mark.parametrize(
    ("call", "path"),
    [(c, p) for c, p in PATHS if p[-1] in ("NetworkID", "EndpointID")
     and ".".join((c, *p)) not in IGNORED],
)  # fmt: skip
def test_a_strange_id_is_refused(call: str, path: tuple[Any, ...]) -> None:
    bench, bodies = prepared()
    plugin, before = Plugin(bench.core), (bench.state, bench.observed())
    for strange in STRANGE:
        status, message = plugin.refusal(call, changed(bodies[call], path, strange))
        assert (status, message.split(" ")[0]) == (400, path[-1])
        assert "12 to 64 lower-case letters and digits" in message or not strange
    assert (bench.state, bench.observed()) == before


@pytest.mark.parametrize("call", CALLS)
def test_a_body_that_is_no_object_is_never_taken_for_one(call: str) -> None:
    bench, _ = prepared()
    plugin, before = Plugin(bench.core), (bench.state, bench.observed())
    for raw in (b"", b"{", b"[]", b"null", b"\xff", b'"x"', b"7"):
        status, message = plugin.refusal(call, raw)
        assert status == 400
        assert message.startswith("the request ")
    assert (bench.state, bench.observed()) == before


@pytest.mark.parametrize("call", sorted(set(GOOD) - {"IpamDriver.RequestPool",
                                                     "IpamDriver.ReleaseAddress"}))  # fmt: skip
def test_an_empty_object_lacks_what_is_needed(call: str) -> None:
    bench, _ = prepared()
    status, message = Plugin(bench.core).refusal(call, {})
    assert status == 400
    assert "is missing; it is " in message


@pytest.mark.parametrize("strange", ["netns/1", "/netns/\0", "/netns/\ud800"])
def test_a_sandbox_that_no_file_can_be_is_refused(strange: str) -> None:
    bench, bodies = prepared()
    plugin, before = Plugin(bench.core), bench.state
    for call, path in [(c, p) for c, p in PATHS if p[-1] == "SandboxKey"]:
        status, message = plugin.refusal(call, changed(bodies[call], path, strange))
        assert status == 400
        assert message.endswith("is not an absolute path")
    assert bench.state == before
