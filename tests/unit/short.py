"""The calls of a Docker whose networks have none of our IPAM."""

from __future__ import annotations

from typing import Any

from driver.api.body import ENABLE_IPV4, GENERIC
from driver.model.objects import SandboxAddress
from driver.model.records import short
from tests.unit.docker import portmap
from tests.unit.plugin import Plugin, Setting

NET, NET2 = "e" * 64, "d" * 64
IPV4_OFF: dict[str, Any] = {"Options": {ENABLE_IPV4: False}, "IPv4Data": []}
NULL: dict[str, Any] = {
    "Options": {},
    "IPv4Data": [{"AddressSpace": "null", "Pool": "0.0.0.0/0"}],
}


def foreign(subnet: str = "172.18.0.0/16", gateway: str = "") -> dict[str, Any]:
    """Return what Docker's own IPAM chooses."""
    first = subnet.replace(".0.0/", ".0.1/")
    block = {"AddressSpace": "LocalDefault", "Pool": subnet, "Gateway": gateway or first}
    return {"Options": {}, "IPv4Data": [block]}


FOREIGN = foreign()


def create(
    on: Setting, body: dict[str, Any], net: str = NET, options: dict[str, Any] | None = None
) -> None:
    both = {GENERIC: {}, **body["Options"], **(options or {})}
    full = {"NetworkID": net, "IPv6Data": [], **body, "Options": both}
    assert on.plugin.call("NetworkDriver.CreateNetwork", full) == {}


def attach(on: Setting, end: str, address: str = "", net: str = NET, mac: str = "") -> Any:
    interface = {"Address": address, "AddressIPv6": "", "MacAddress": mac}
    body = {"NetworkID": net, "EndpointID": end, "Interface": interface, "Options": {}}
    return on.plugin.call("NetworkDriver.CreateEndpoint", body)["Interface"]


def join(on: Setting, end: str, net: str = NET) -> Any:
    ids = {"NetworkID": net, "EndpointID": end}
    key = f"/var/run/docker/netns/{short(end)}"
    reply = on.plugin.call("NetworkDriver.Join", {**ids, "SandboxKey": key, "Options": {}})
    on.bench.kernel.moved.add(reply["InterfaceName"]["SrcName"])
    return reply


def detach(on: Setting, end: str, net: str = NET) -> None:
    ids = {"NetworkID": net, "EndpointID": end}
    on.plugin.call("NetworkDriver.Leave", ids)
    on.plugin.call("NetworkDriver.DeleteEndpoint", ids)


def restart(on: Setting) -> None:
    on.bench.boot()
    on.plugin = Plugin(on.bench.core)


def end_id(number: int) -> str:
    return f"{number:012x}".ljust(64, "c")


def operational(on: Setting, end: str) -> None:
    body = {"NetworkID": NET, "EndpointID": end}
    assert on.plugin.call("NetworkDriver.EndpointOperInfo", body) == {"Value": {}}


def publish(on: Setting, end: str, *ports: Any, net: str = NET) -> None:
    body = {"NetworkID": net, "EndpointID": end, "Options": portmap(*ports)}
    on.plugin.call("NetworkDriver.ProgramExternalConnectivity", body)


def set_in_sandboxes(on: Setting) -> list[str]:
    return sorted(
        f"{t.ip} via {t.via}" for t in on.bench.observed() if isinstance(t, SandboxAddress)
    )


def start(on: Setting, number: int, address: str, net: str = NET) -> str:
    end = end_id(number)
    attach(on, end, address, net)
    join(on, end, net)
    return end
