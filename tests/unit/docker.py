"""dockerd as the plugin sees it: which calls it makes in which order, and how it rolls back.

From libnetwork.md, section 4. What it is refused it undoes as dockerd does, and raises `Refused`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from driver.errors import FlannelError
from driver.model.records import CONTAINER_END_PREFIX, HOST_END_PREFIX, short
from driver.standin import SPACE
from tests.unit.bench import Bench
from tests.unit.fakes import Crash

Send = Callable[[str, dict[str, Any]], dict[str, Any]]
GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}


class Refused(Exception):
    """A call was answered with an error, or not at all."""


def port(
    number: int, first: int = 0, last: int = 0, proto: int = 6, host: str = ""
) -> dict[str, Any]:
    """Return a PortBinding as dockerd words it."""
    return {
        "Proto": proto,
        "IP": "",
        "Port": number,
        "HostIP": host,
        "HostPort": first,
        "HostPortEnd": last or first,
    }


def portmap(*ports: dict[str, Any]) -> dict[str, Any]:
    """Return the Options of Program."""
    return {"com.docker.network.portmap": list(ports)}


@dataclass
class Net:
    """A network. `kind`: who gives its addresses: "flannel", Docker's own IPAM ("docker"), or
    none ("off"), so that the driver does."""

    id: str
    pool: str = ""
    block: str = ""
    gateway: str = ""
    internal: bool = False
    containers: list[Container] = field(default_factory=list)
    kind: str = "flannel"


@dataclass(eq=False)  # one is found in a list by itself, undisturbed by other threads
class Container:
    id: str
    net: Net
    address: str = ""
    mac: str = ""


def direct(bench: Bench) -> Send:
    """Call the handlers without HTTP; a plugin that dies is started anew, the call is lost."""

    def send(method: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return bench.call(method, **body)
        except FlannelError as error:
            raise Refused(str(error)) from error
        except Crash as crash:
            bench.boot()
            raise Refused("the connection broke") from crash

    return send


class Docker:
    """One dockerd, with ids that are never given twice."""

    def __init__(self, bench: Bench, send: Send | None = None, serial: int = 0) -> None:
        self._bench, self._send = bench, send or direct(bench)
        self._serial = serial
        self._subnets: dict[int, str] = {}

    def new_id(self) -> str:
        self._serial += 1
        return f"{self._serial:012x}".ljust(64, "0")

    def create_network(
        self, pool: str = "", *, options: dict[str, Any] | None = None, internal: bool = False
    ) -> Net:
        net = Net(self.new_id(), internal=internal)
        reply = self._send(
            "IpamDriver.RequestPool",
            {"AddressSpace": SPACE, "Pool": pool, "SubPool": "", "Options": {}, "V6": False},
        )
        net.pool, net.block = reply["PoolID"], reply["Pool"]
        try:
            net.gateway = self.address(net, kind=GATEWAY)
            self.send_create(net, options or {})
        except Refused:
            self.quietly("IpamDriver.ReleasePool", PoolID=net.pool)
            raise
        return net

    def create_short(self, kind: str, *, internal: bool = False) -> Net:
        """Make a network without asking the plugin's IPAM."""
        net = Net(self.new_id(), internal=internal, kind=kind)
        if kind == "docker":
            free = (n for n in range(18, 32) if n not in self._subnets)
            number = next(free)
            self._subnets[number] = net.id
            net.block, net.gateway = f"172.{number}.0.0/16", f"172.{number}.0.1/16"
        try:
            self.send_create(net, {})
        except Refused:
            self._give_subnet_back(net)
            raise
        return net

    def _give_subnet_back(self, net: Net) -> None:
        self._subnets = {n: owner for n, owner in self._subnets.items() if owner != net.id}

    def send_create(self, net: Net, options: dict[str, Any]) -> None:
        flags = {"com.docker.network.internal": True} if net.internal else {}
        space = SPACE if net.kind == "flannel" else "LocalDefault"
        blocks = [{"AddressSpace": space, "Gateway": net.gateway, "Pool": net.block}]
        if net.kind == "off":
            flags["com.docker.network.enable_ipv4"] = False
        self._send(
            "NetworkDriver.CreateNetwork",
            {
                "NetworkID": net.id,
                "Options": {
                    "com.docker.network.enable_ipv6": False,
                    "com.docker.network.generic": options,
                    **flags,
                },
                "IPv4Data": blocks if net.kind != "off" else [],
                "IPv6Data": [],
            },
        )

    def address(self, net: Net, wanted: str = "", kind: dict[str, Any] | None = None) -> str:
        body = {"PoolID": net.pool, "Address": wanted, "Options": kind}
        return str(self._send("IpamDriver.RequestAddress", body)["Address"])

    def start(self, net: Net, *ports: dict[str, Any], wanted: str = "", mac: str = "") -> Container:
        made = Container(self.new_id(), net, mac=mac)
        if net.kind == "flannel":
            made.address = self.address(net, wanted)
        elif net.kind == "docker":
            made.address = self._lowest_free(net)
        done: list[str] = []
        try:
            self._set_up(made, list(ports), done)
        except Refused:
            for call in done:
                self._end_call(made, call)
            self._give_back(made)
            raise
        net.containers.append(made)
        return made

    def _set_up(self, made: Container, ports: list[dict[str, Any]], done: list[str]) -> None:
        ids = {"NetworkID": made.net.id, "EndpointID": made.id}
        interface = {"Address": made.address, "AddressIPv6": "", "MacAddress": made.mac}
        reply = self._send(
            "NetworkDriver.CreateEndpoint",
            {**ids, "Interface": interface, "Options": portmap(*ports)},
        )
        made.mac = made.mac or reply["Interface"]["MacAddress"]
        made.address = made.address or reply["Interface"]["Address"]
        done.append("NetworkDriver.DeleteEndpoint")
        key = f"/var/run/docker/netns/{short(made.id)}"
        joined = self._send("NetworkDriver.Join", {**ids, "SandboxKey": key, "Options": {}})
        self._bench.kernel.moved.add(joined["InterfaceName"]["SrcName"])
        done.insert(0, "NetworkDriver.Leave")
        self.come_up(made)
        if "Gateway" in joined:
            self.publish(made, *ports)

    def come_up(self, made: Container) -> None:
        """The kernel tells that the interface is up in the sandbox."""
        try:
            self._bench.core.set_sandbox_addresses(frozenset({HOST_END_PREFIX + short(made.id)}))
        except Crash:
            self._bench.boot()

    def _lowest_free(self, net: Net) -> str:
        taken = {made.address for made in net.containers}
        addresses = (net.gateway.replace(".0.1/", f".0.{n}/") for n in range(2, 99))
        return next(ip for ip in addresses if ip not in taken)

    def publish(self, made: Container, *ports: dict[str, Any]) -> None:
        self._send(
            "NetworkDriver.ProgramExternalConnectivity",
            {"NetworkID": made.net.id, "EndpointID": made.id, "Options": portmap(*ports)},
        )

    def stop(self, made: Container) -> None:
        """End a container; what is refused is only logged."""
        self._end_call(made, "NetworkDriver.RevokeExternalConnectivity")
        self._end_call(made, "NetworkDriver.Leave")
        self._end_call(made, "NetworkDriver.DeleteEndpoint")
        self._give_back(made)
        made.net.containers.remove(made)

    def _end_call(self, made: Container, call: str) -> None:
        self.quietly(call, NetworkID=made.net.id, EndpointID=made.id)
        if call == "NetworkDriver.Leave":
            self._bench.kernel.moved.discard(CONTAINER_END_PREFIX + short(made.id))

    def _give_back(self, made: Container) -> None:
        if made.net.kind != "flannel":
            return  # Docker's own IPAM is told, or nobody
        address = made.address.partition("/")[0]
        self.quietly("IpamDriver.ReleaseAddress", PoolID=made.net.pool, Address=address)

    def remove_network(self, net: Net) -> None:
        if net.kind == "flannel":
            gateway = net.gateway.partition("/")[0]
            self.quietly("IpamDriver.ReleaseAddress", PoolID=net.pool, Address=gateway)
            self.quietly("IpamDriver.ReleasePool", PoolID=net.pool)
        self._give_subnet_back(net)
        self.quietly("NetworkDriver.DeleteNetwork", NetworkID=net.id)

    def quietly(self, method: str, **body: Any) -> None:
        try:
            self._send(method, body)
        except Refused:
            return
