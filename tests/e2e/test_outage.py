"""etcd fails, in part or as a whole, or has no config, and Docker's users do not notice."""

from __future__ import annotations

import http
import sys

import pytest

from tests.bed import Bed, Host, Node, wait_for
from tests.e2e.helpers import address, gets, web
from tests.e2e.outage import (
    CONFIG,
    World,
    everyday,
    has_peers,
    lease,
    no_lease_yet,
    phase,
    quick,
    refused_network,
    status,
    subnet,
    told,
    well,
)
from tests.unit.etcd_member import CONFIG_KEY, FOLDER

# Run by a node: PORT HOST PORT FILE. Each answer comes as many seconds later as the file says.
SLOW = """
import asyncio, contextlib, pathlib, sys

port, host, target, file = sys.argv[1:]

async def copy(source, sink, late):
    with contextlib.suppress(OSError):
        while chunk := await source.read(65536):
            wait_s = float(pathlib.Path(file).read_text()) if late else 0
            asyncio.get_running_loop().call_later(wait_s, sink.write, chunk)
    sink.close()

async def serve(reader, writer):
    far_reader, far_writer = await asyncio.open_connection(host, int(target))
    await asyncio.gather(copy(reader, far_writer, False), copy(far_reader, writer, True))

async def main():
    await (await asyncio.start_server(serve, "0.0.0.0", int(port))).serve_forever()

asyncio.run(main())
"""


class SlowWay:
    """A way to a port of a node by another port of it, as slow as told."""

    def __init__(self, node: Node, port: int, target: int) -> None:
        self._file = node.folder / f"delay-{port}"
        self.delay(0)
        self.url = f"http://{node.address}:{port}"
        words = (str(port), node.address, str(target), self._file)
        node.popen(sys.executable, "-c", SLOW, *words, log_name="slow")

    def delay(self, seconds: float) -> None:
        """Delay each answer from now on."""
        self._file.write_text(str(seconds))


@pytest.fixture(scope="module")
def world(bed: Bed) -> World:
    return World.build(bed, 3)


def newcomer(world: World, name: str) -> Host:
    host = world.bed.host(name)
    world.start_plugin(host)
    return host


def test_one_member_killed(two: World) -> None:
    h1, h2 = two.hosts
    before = [subnet(h) for h in two.hosts]
    traffic = two.talk()
    hosts = list(two.hosts)
    # the one in use, then the leader
    for name in ("h3", "h4"):
        two.store.kill(two.store.ports[0] if name == "h3" else two.store.leader())
        for host in two.hosts:
            everyday(host, two.visitor)
        hosts.append(newcomer(two, name))
        two.meet(*hosts)
        two.store.start()
    for host in hosts[2:]:
        host.power_off()
    traffic.end()
    assert [subnet(h) for h in (h1, h2)] == before


def test_all_members_down(two: World) -> None:
    h1, h2 = two.hosts
    before = {h.name: subnet(h) for h in two.hosts}
    traffic = two.talk()
    web(h1, "lasting", "app", "--restart", "always", "-p", "8090:80")
    two.store.kill()
    for host in two.hosts:
        told(host, "etcd cannot be reached", "connection refused")
        assert phase(host) == "unreachable"
        everyday(host, two.visitor)
    two.start_plugin(h1)  # after kill -9
    told(h1, "etcd cannot be reached")
    has_peers(h1, {before["h2"]: h2.address})
    everyday(h1, two.visitor)
    traffic.end()
    h1.reboot()
    two.start_plugin(h1)
    h1.restart_dockerd()
    has_peers(h1, {before["h2"]: h2.address})
    url = f"http://{h1.address}:8090/"
    wait_for(lambda: two.visitor.reaches(url), "the container after the reboot")
    target = f"http://{address(h1, 'lasting', 'app')}/"
    wait_for(lambda: gets(h2, "web2", target) == "lasting", "the way between the hosts")
    assert gets(h1, "lasting", f"http://{address(h2, 'web2', 'app')}/") == "web2"
    everyday(h1, two.visitor)
    h5 = newcomer(two, "h5")
    told(h5, "etcd cannot be reached")
    code, answer = h5.call("IpamDriver.RequestPool", {"AddressSpace": "flannel", "Pool": ""})
    assert code == http.HTTPStatus.SERVICE_UNAVAILABLE
    assert "no flannel lease yet" in str(answer)
    two.store.start()
    two.meet(h1, h2, h5)
    assert {h.name: subnet(h) for h in two.hosts} == before
    quick(h5)
    h5.power_off()


def test_compaction_while_one_host_is_cut_off(two: World) -> None:
    h1, h2 = two.hosts
    for n in range(3):
        two.store.put(f"{FOLDER}10.2.{n}.0-24", lease(50 + n))
    has_peers(h1, two.store.peers_of(h1))
    before = subnet(h1)
    h1.cable(False)
    told(h1, "etcd")
    two.store.ctl("del", f"{FOLDER}10.2.0.0-24")
    two.store.put(f"{FOLDER}10.2.1.0-24", lease(60))
    two.store.put(f"{FOLDER}10.2.3.0-24", lease(53))
    two.store.compact()
    h1.cable(True)
    well(h1)
    expected = two.store.peers_of(h1)
    assert expected == {
        "10.2.1.0/24": "192.0.2.60",
        "10.2.2.0/24": "192.0.2.52",
        "10.2.3.0/24": "192.0.2.53",
        subnet(h2): h2.address,
    }
    has_peers(h1, expected)
    has_peers(h2, two.store.peers_of(h2))
    assert subnet(h1) == before
    assert "relisting" in h1.plugin_log()


def test_slow_etcd(two: World) -> None:
    h1, h2 = two.hosts
    way = SlowWay(two.store.node, 2300, two.store.ports[0])
    slow = {"FLANNELD_ETCD_ENDPOINTS": way.url}
    before = subnet(h1)
    two.start_plugin(h1, **slow)
    well(h1)
    traffic = two.talk()
    way.delay(5)
    two.store.put(f"{FOLDER}10.2.3.0-24", lease(53))
    everyday(h1, two.visitor)
    told(h1, "no answer in time")
    two.start_plugin(h1, **slow)
    told(h1, "no answer in time")
    everyday(h1, two.visitor)
    assert status(h1)["lease"]["subnet"] == before
    way.delay(0)
    well(h1)
    has_peers(h1, two.store.peers_of(h1))
    has_peers(h2, two.store.peers_of(h2))
    traffic.end()


def test_config_missing_and_invalid(two: World) -> None:
    h1, h2 = two.hosts
    h2.kill_plugin()
    h1.kill_plugin()
    two.store.ctl("del", "--prefix", "/")
    two.start_fresh(h1)
    pid = h1.plugin_pids()
    told(h1, f"there is no network config in etcd at {CONFIG_KEY}")
    assert phase(h1) == "waiting"
    no_lease_yet(h1)
    for text in ("{", '{"Network": "nonsense"}', '{"Network": "10.2.0.0/16", "SubnetLen": 8}'):
        two.store.put(CONFIG_KEY, text)
        told(h1, f"the network config in etcd at {CONFIG_KEY} is bad")
        no_lease_yet(h1)
    two.store.put(CONFIG_KEY, CONFIG)
    well(h1)
    assert subnet(h1)
    everyday(h1, two.visitor)
    before = subnet(h1)
    two.store.put(CONFIG_KEY, "nonsense")
    told(h1, "is bad", "the config stays as it was")
    everyday(h1, two.visitor)
    two.store.put(CONFIG_KEY, CONFIG)
    well(h1)
    assert subnet(h1) == before
    assert h1.plugin_pids() == pid
    two.start_plugin(h2)
    two.meet(h1, h2)


def test_the_state_is_lost_while_etcd_is_away(two: World) -> None:
    h1, _ = two.hosts
    before, leases = subnet(h1), two.store.values()
    traffic = two.talk()
    two.store.kill()
    h1.kill_plugin()
    for file in h1.state_dir.iterdir():
        file.unlink()
    two.start_plugin(h1)
    told(h1, "etcd cannot be reached", "docker flannel adopt")
    assert "this host has no flannel lease yet: etcd cannot" in refused_network(h1).stderr
    two.store.start()
    wait_for(lambda: phase(h1) == "held", "the lease", 60)
    well(h1)
    assert subnet(h1) == before
    assert two.store.values() == leases
    assert len(status(h1)["endpoints"]) == 1, "who runs has been taken over"
    everyday(h1, two.visitor)
    traffic.end()
