"""Random publishing, conflicts, crashes, restarts and flushes, on the real adapters.

The reconciler with its store, sockets, nft table and flows in a namespace; the fakes go through
many more in tests/unit. Every sequence ends with what is held, published and stored the same.
"""

import json
import random
import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest

from driver.api.body import Body
from driver.core.dataplane import Dataplane
from driver.core.flows import Forgetful
from driver.core.reconciler import Reconciler
from driver.errors import FlannelError
from driver.flannel.local_source import LocalSource
from driver.handlers import CALLS
from driver.host.conntrack import Conntrack
from driver.host.firewall.nft import PATH, NftFirewall
from driver.host.journal import SqliteJournal
from driver.host.links import Links
from driver.host.port_sockets import PortSockets
from driver.model.facts import Facts
from driver.model.firewall import PortMap
from driver.model.objects import PortSocket
from tests.unit.bench import NETWORK
from tests.unit.docker import port, portmap

pytestmark = pytest.mark.kernel
SEQUENCES, ACTS = 200, 20
NUMBERS = range(8000, 8004)
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
NET, ENDS = "a" * 64, [letter * 64 for letter in "bcd"]


class Crash(BaseException):
    """The process dies here."""


class Mortal:
    """A host that the process may die in: before it acts, or after."""

    def __init__(self, inner):
        self.inner, self.kinds = inner, inner.kinds
        self.dies = ""

    def observe(self):
        return self.inner.observe()

    def apply(self, plan):
        if self.dies == "before":
            raise Crash
        self.inner.apply(plan)
        if self.dies == "after":
            raise Crash

    def close(self):
        self.inner.close()


class Survey:
    """Nothing but our own links."""

    def __init__(self, netlink):
        self.links, self.look = netlink.links, netlink.observe_links

    def facts(self):
        return Facts()

    def disturbed(self):
        return False

    def ephemeral_ports(self):
        raise AssertionError("nobody asks for any port")

    def docker_acts(self):
        return None

    def occupied(self):
        return frozenset()

    def residents(self, _host_ends):
        return ()


class Chaos:
    """The plugin's core, a Docker that publishes ports, and programs that want them too."""

    def __init__(self, host, folder, rng):
        self.host, self.folder, self.rng = host, folder, rng
        self.programs = {}
        self.parts = []
        self.boot()
        block = self.call("IpamDriver.RequestPool", AddressSpace="flannel", Pool="")
        kind = {"RequestAddressType": "com.docker.network.gateway"}
        ask = {"PoolID": block["PoolID"], "Address": ""}
        gateway = self.call("IpamDriver.RequestAddress", **ask, Options=kind)["Address"]
        data = {"AddressSpace": "flannel", "Pool": block["Pool"], "Gateway": gateway}
        self.call("NetworkDriver.CreateNetwork", NetworkID=NET, IPv4Data=[data])
        for end in ENDS:
            address = self.call("IpamDriver.RequestAddress", **ask)["Address"]
            interface = {"Interface": {"Address": address}}
            self.call("NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=end, **interface)

    def boot(self):
        """Start anew, as after a crash: sockets go with a process, all else stays."""
        self.close()
        netlink, nft = Links(), Forgetful(NftFirewall(), Conntrack())
        store = SqliteJournal(self.folder / "state.db")
        self.parts = [Mortal(part) for part in (netlink, PortSockets(), nft)]
        source = LocalSource("standalone", NETWORK, 24, Path("/nonexistent"))
        self.core = Reconciler(store, Dataplane(self.parts), Survey(netlink), source)
        self.closed = closing(store)
        self.core.attempt()

    def close(self):
        for part in self.parts:
            part.close()
        if self.parts:
            self.closed.__exit__(None, None, None)

    def call(self, method, **body):
        return CALLS[method](self.core, Body.decode(json.dumps(body).encode()))

    def publish(self):
        wishes = [
            port(80, self.rng.choice(NUMBERS), proto=self.rng.choice([6, 17, 132])),
            port(81, self.rng.choice(NUMBERS), host="127.0.0.1"),
            port(82, 8000, 8003),
            port(83, 8000, 8003, proto=17),
        ]
        options = portmap(*self.rng.sample(wishes, self.rng.randint(0, 3)))
        program = "NetworkDriver.ProgramExternalConnectivity"
        with suppress(FlannelError):
            self.call(program, NetworkID=NET, EndpointID=self.rng.choice(ENDS), Options=options)

    def revoke(self):
        revoke = "NetworkDriver.RevokeExternalConnectivity"
        self.call(revoke, NetworkID=NET, EndpointID=self.rng.choice(ENDS))

    def program(self):
        """Another program takes a port, or gives its own back."""
        where = self.rng.choice(["tcp", "udp"]), self.rng.choice(NUMBERS)
        if where in self.programs:
            self.programs.pop(where).close()
        elif taken := bound(*where):
            self.programs[where] = taken

    def flush(self):
        """Take away what an administrator may take away; a pass follows, as the loop makes it."""
        ways = ("flush ruleset", f"delete table {PATH}", f"flush map {PATH} pub4_any")
        if PATH in self.host.run("nft", "list", "tables"):
            self.host.run("nft", *self.rng.choice((*ways, f"flush table {PATH}")).split())
        self.core.attempt()

    def crash(self):
        part = self.rng.choice(self.parts)
        part.dies = self.rng.choice(["before", "after"])
        with suppress(Crash):
            self.rng.choice([self.publish, self.revoke])()
        self.boot()

    def act(self):
        self.rng.choice([self.publish] * 4 + [self.revoke, self.program, self.flush, self.crash])()


def bound(proto, number):
    """Take a port as any program would, None where it is taken."""
    sock = socket.socket(socket.AF_INET, KINDS[proto])
    try:
        sock.bind(("", number))
    except OSError:
        sock.close()
        return None
    return sock


def free(proto, number):
    sock = bound(proto, number)
    if sock:
        sock.close()
    return bool(sock)


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_ports_held_published_and_stored_are_the_same(seed, host, tmp_path):
    print(f"seed {seed}")  # noqa: T201
    chaos = Chaos(host, tmp_path, random.Random(seed))  # noqa: S311
    for _ in range(ACTS):
        chaos.act()
    for sock in chaos.programs.values():
        sock.close()
    for _ in range(12):  # a port that was somebody else's is tried for now and then
        chaos.core.attempt()
    stored = {
        (p.proto, p.host_ip, p.host_port, e.id)
        for e in chaos.core.state.endpoints.values()
        for p in e.ports
    }
    have = chaos.core.dataplane.observe()
    held = {(t.proto, t.ip, t.port, t.owner) for t in have if isinstance(t, PortSocket)}
    led = {(t.proto, t.host_ip, t.host_port, t.owner) for t in have if isinstance(t, PortMap)}
    assert held == led == stored
    taken = {(proto, number) for proto, _, number, _ in stored}
    for proto in KINDS:
        for number in NUMBERS:
            assert free(proto, number) == ((proto, number) not in taken)
    for end in ENDS:
        chaos.call("NetworkDriver.DeleteEndpoint", NetworkID=NET, EndpointID=end)
    assert all(free(proto, number) for proto in KINDS for number in NUMBERS)
    assert not any(isinstance(t, PortMap) for t in chaos.core.dataplane.observe())
    chaos.close()
