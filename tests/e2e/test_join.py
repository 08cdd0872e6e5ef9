"""What stands in the way of `init`, `join` and `leave`, and an etcd of several members."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests import pages
from tests.bed import Bed, Host, Node, wait_for
from tests.e2e.etcd_bed import Authority
from tests.e2e.helpers import status
from tests.e2e.members import (
    FOLDER,
    LEASES,
    SETTINGS,
    etcdctl,
    flannel,
    leases,
    machine,
    meet,
    refused,
    started,
    subnet,
    token,
)


@pytest.fixture(scope="module")
def first(bed: Bed) -> Host:
    """Return a host that has set up a network of four leases."""
    host = machine(bed, "first", docker=False)
    flannel(host, "init", "--network", "10.2.0.0/19", "--subnet-len", "21")
    return host


@pytest.fixture(scope="module")
def line(first: Host) -> str:
    """Return the token."""
    return token(flannel(first, "init"))


@pytest.fixture(scope="module")
def fresh(bed: Bed) -> Host:
    """Return a host."""
    return machine(bed, "other", docker=False)


@pytest.fixture
def other(fresh: Host) -> Iterator[Host]:
    """Yield a host in no network; a test leaves it so."""
    yield fresh
    flannel(fresh, "leave")
    as_before(fresh)


def as_before(host: Host) -> None:
    """Check that a host has nothing of a network."""
    assert not host.run("ls", FOLDER, check=False).ok
    assert not host.run("cat", SETTINGS, check=False).stdout
    assert status(host)["lease"]["source"] == "standalone"
    assert "flannel.1" not in host.run("ip", "link").stdout


def join_fails(host: Host, given: str, *words: str) -> str:
    """Join in vain; return why. Nothing may be left."""
    sentence = refused(host, "join", "-", *words, given=given)
    as_before(host)
    return sentence


def test_a_bad_token(other: Host, line: str) -> None:
    assert "is no token" in join_fails(other, "hello")
    assert "cut or damaged" in join_fails(other, line[:-9])
    assert "version 2" in join_fails(other, line.replace("dfl1", "dfl2"))
    assert "is no token" in join_fails(other, "")


def test_etcd_out_of_reach(other: Host, first: Host, line: str) -> None:
    first.run(
        "iptables", "-I", "INPUT", "-p", "tcp", "--dport", "2379", "-s", other.address, "-j", "DROP"
    )
    try:
        sentence = join_fails(other, line)
    finally:
        first.run("iptables", "-D", "INPUT", "1")
    assert f"https://{first.address}:2379: no answer in time" in sentence
    assert "TCP port 2379" in sentence


def test_no_lease_is_left(other: Host, first: Host, line: str) -> None:
    for third in (0, 8, 16, 24):
        if f"10.2.{third}.0/21" not in leases(first):
            data = {"VNI": 1, "VtepMAC": f"02:00:00:00:01:{third:02}"}
            attributes = {"PublicIP": f"192.0.2.{100 + third}", "BackendType": "vxlan"}
            value = json.dumps({**attributes, "BackendData": data})
            etcdctl(first, "put", f"{LEASES}10.2.{third}.0-21", value)
    try:
        assert "no free subnet of /21 from 10.2.8.0 to 10.2.24.0" in join_fails(other, line)
    finally:
        for taken in leases(first) - {subnet(first)}:
            etcdctl(first, "del", LEASES + taken.replace("/", "-"))


def test_the_public_ip_of_another_host(other: Host, first: Host, line: str) -> None:
    sentence = join_fails(other, line, "--iface", "eth0", "--public-ip", first.address)
    assert f"public IP {first.address}" in sentence
    wait_for(lambda: status(first)["phase"] == "held", "the first host's lease")


def test_another_network(other: Host, first: Host, line: str, bed: Bed) -> None:
    second = machine(bed, "second", docker=False)
    elsewhere = token(flannel(second, "init", "--network", "10.3.0.0/16"))
    flannel(other, "join", "-", given=line)
    sentence = refused(other, "join", "-", given=elsewhere)
    assert f"https://{first.address}:2379" in sentence
    assert "`docker-flannel leave`" in sentence
    meet(first, other)
    sentence = refused(second, "init", "--network", "10.4.0.0/16")
    assert "network 10.3.0.0/16, a /21 for each host, backend vxlan" in sentence
    assert token(flannel(second, "init", "--network", "10.3.0.0/16")) == elsewhere


def killed_at(host: Host, lines: int, *words: str) -> bool:
    """Start a command and kill it once it has told of so many steps; False: it was faster."""
    process = started(host, *words)
    wait_for(
        lambda: not process.running() or process.log().count("\n") >= lines, "the step", 120, 0.005
    )
    alive = process.running()
    process.kill()
    return alive


def test_killed_between_steps(other: Host, first: Host, line: str) -> None:
    cut = 0
    for lines in range(6):
        cut += killed_at(other, lines, "join", line)
        flannel(other, "join", "-", given=line)
        meet(first, other)
        cut += killed_at(other, lines, "leave")
        flannel(other, "leave")
        as_before(other)
        wait_for(lambda: leases(first) == {subnet(first)}, "the lease to be gone")
    assert cut > 6


def test_init_killed_between_steps(bed: Bed) -> None:
    host = machine(bed, "alone", docker=False)
    cut = 0
    for lines in range(8):
        cut += killed_at(host, lines, "init")
        flannel(host, "init")
        assert leases(host) == {subnet(host)}
        cut += killed_at(host, lines, "leave")
        flannel(host, "leave")
        as_before(host)
        host.run("rm", "-rf", "/var/lib/etcd/default")
        assert not host.run("ss", "-Hltn", "sport = 2379").stdout
    assert cut > 8


def test_two_at_once_and_a_new_address(bed: Bed, other: Host) -> None:
    host = machine(bed, "twice", docker=False)
    runs = [started(host, "init"), started(host, "init")]
    wait_for(lambda: not any(run.running() for run in runs), "both to end", 120)
    assert sorted(run.code or 0 for run in runs) == [0, 1], [run.log() for run in runs]
    flannel(other, "join", "-", given=token(flannel(host, "init")))
    meet(host, other)
    address, had = "192.0.2.222", {subnet(host), subnet(other)}
    host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    given = flannel(host, "init", "--public-ip", address)
    assert given.seconds < 30
    flannel(other, "join", "-", given=token(given))
    meet(host, other)
    assert {subnet(host), subnet(other)} == had
    assert "joined another network" in refused(host, "init", "--etcd-prefix", "/other")


class Three:
    """An etcd of three members, each on a machine of its own, with somebody's own certificates."""

    def __init__(self, bed: Bed) -> None:
        self.nodes = [bed.client(f"etcd{n}") for n in (1, 2, 3)]
        folder = bed.folder / "own"
        folder.mkdir()
        self.authority = Authority(folder)
        names = ",".join(f"IP:{node.address}" for node in self.nodes)
        self.server, self.client = (
            self.authority.issue("server", names),
            self.authority.issue("client"),
        )
        cluster = ",".join(f"{node.name}=http://{node.address}:2380" for node in self.nodes)
        self.members = [self._member(node, cluster) for node in self.nodes]
        wait_for(self._healthy, "etcd", 60)

    def _member(self, node: Node, cluster: str) -> object:
        cert, key = map(str, self.server)
        url, peer = f"https://{node.address}:2379", f"http://{node.address}:2380"
        return node.popen(
            "etcd", "--name", node.name, "--data-dir", f"{node.folder}/data",
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", cluster, "--cert-file", cert, "--key-file", key,
            "--client-cert-auth", "--trusted-ca-file", str(self.authority.cert),
        )  # fmt: skip

    @property
    def urls(self) -> str:
        return ",".join(f"https://{node.address}:2379" for node in self.nodes)

    @property
    def options(self) -> list[str]:
        """Return what is after `init` on the page for users, with what is here in its place."""
        [line] = pages.commands("docs/hosts.md", "An etcd of your own")
        command, name, *options = line.split()
        assert (command, name) == ("docker-flannel", "init")
        cert, key = map(str, self.client)
        here = {"ca.pem": str(self.authority.cert), "client.pem": cert, "client.key": key}
        given = ",".join(f"https://192.0.2.{n}:2379" for n in (1, 2, 3))
        return [{**here, given: self.urls}.get(word, word) for word in options]

    def _healthy(self) -> bool:
        cert, key = map(str, self.client)
        files = (f"--cacert={self.authority.cert}", f"--cert={cert}", f"--key={key}")
        ask = ("etcdctl", f"--endpoints={self.urls}", *files, "endpoint", "health")
        return self.nodes[0].run(*ask, env={"ETCDCTL_API": "3"}, check=False).ok


def test_three_members_of_which_one_dies(bed: Bed) -> None:
    etcd = Three(bed)
    one, two, three = (machine(bed, f"host{n}", docker=False) for n in (1, 2, 3))
    given = flannel(one, "init", *etcd.options)
    line = token(given)
    assert set(one.run("ls", FOLDER).stdout.split()) == {
        *("ca.pem", "client.pem", "client.key", "joined.json"),
    }
    flannel(two, "join", "-", given=line)
    etcd.nodes[0].power_off()
    result = flannel(three, "join", "-", given=line)
    assert result.seconds < 60
    meet(one, two, three)
    assert token(flannel(one, "init")) == line
    for host in (one, two, three):
        flannel(host, "leave")
        as_before(host)
