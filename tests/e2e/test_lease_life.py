"""What happens to a lease in etcd: deleted, stolen, doubled, refused, and among broken ones."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.bed import Bed, Host, wait_for
from tests.e2e.etcd_bed import Authority
from tests.e2e.helpers import address, container, gets, network, pings, web
from tests.e2e.outage import (
    CONFIG,
    Store,
    World,
    everyday,
    has_peers,
    key,
    lease,
    no_lease_yet,
    peers,
    phase,
    problems,
    refused_network,
    subnet,
    told,
)
from tests.unit.etcd_member import CONFIG_KEY, FOLDER, PREFIX

SECRET = "S3cretPassword"  # noqa: S105


@pytest.fixture(scope="module")
def world(bed: Bed) -> World:
    return World.build(bed, 1)


# --- keys ---


def test_all_keys_wiped_and_the_lease_deleted(two: World) -> None:
    h1, h2 = two.hosts
    before = [subnet(h) for h in two.hosts]
    traffic = two.talk()
    two.store.ctl("del", "--prefix", "/coreos.com")
    for host in two.hosts:
        told(host, f"there is no network config in etcd at {CONFIG_KEY}")
    everyday(h1, two.visitor)
    two.store.put(CONFIG_KEY, CONFIG)
    two.meet(h1, h2)
    assert [subnet(h) for h in two.hosts] == before
    leases = two.store.values()
    two.store.ctl("del", key(h1))
    wait_for(lambda: two.store.values() == leases, "the lease", 20)
    two.meet(h1, h2)
    assert [subnet(h) for h in two.hosts] == before
    everyday(h2, two.visitor)
    traffic.end()


def test_a_stolen_lease(two: World) -> None:
    h1, h2 = two.hosts
    before, mine = subnet(h1), key(h1)
    traffic = two.talk()
    near = container(h1, "near", "app")
    web(h1, "open", "app", "-p", "8090:80")
    two.store.put(mine, lease(99))
    told(h1, f"our subnet {before} belongs to 192.0.2.99", f"delete the key {mine}")
    assert phase(h1) == "lost"
    lost = f"the lease of {before} is lost, and another host may use it"
    asked = h1.docker("run", "-d", "--name", "more", "--network", "app", "box", "true", check=False)
    assert not asked.ok
    assert lost in asked.stderr
    assert lost in refused_network(h1).stderr
    assert pings(h1, "web1", near)
    assert two.visitor.reaches(f"http://{h1.address}:8090/")
    two.start_plugin(h1)
    told(h1, f"our subnet {before} belongs to 192.0.2.99")
    assert lost in refused_network(h1).stderr
    assert pings(h1, "web1", near)
    assert two.visitor.reaches(f"http://{h1.address}:8090/")
    assert two.store.values()[mine.rpartition("/")[2]] == lease(99)
    has_peers(h1, {subnet(h2): h2.address})
    two.store.ctl("del", mine)
    two.meet(h1, h2)
    assert subnet(h1) == before
    h1.docker("rm", "-f", "more")
    container(h1, "more", "app")
    everyday(h1, two.visitor)
    assert two.store.values()[mine.rpartition("/")[2]] != lease(99)
    traffic.end(may_lose=1000)  # h2 has had the thief as a peer


def renumber(host: Host, ip: str) -> None:
    """Give a host that has no plugin running another address, as another DHCP server would."""
    host.run("ip", "addr", "flush", "dev", "eth0")
    host.run("ip", "addr", "add", f"{ip}/24", "dev", "eth0")
    host.run("ip", "route", "add", "default", "via", "192.0.2.1")
    host.address = ip


def test_another_address_since_the_last_run(two: World) -> None:
    h1, h2 = two.hosts
    before, old = subnet(h1), h1.address
    traffic = two.talk()
    there = address(h2, "web2", "app")
    wait_for(lambda: pings(h1, "web1", there), "the containers to reach each other", 20)
    for ip in ("192.0.2.77", old):
        h1.kill_plugin()
        renumber(h1, ip)
        two.start_plugin(h1)
        two.meet(h1, h2)
        assert subnet(h1) == before
        assert len(two.store.values()) == 2
        wait_for(lambda: pings(h1, "web1", there), "the containers to reach each other", 20)
    traffic.end(may_lose=1000)  # between an address and the next start


def twin(world: World) -> None:
    """Start the second host with the first one's public IP, and wait until one is refused."""
    h1, h2 = world.hosts
    world.start_fresh(h2, FLANNELD_IFACE="eth0", FLANNELD_PUBLIC_IP=h1.address)
    wait_for(
        lambda: sorted(map(phase, world.hosts)) == ["held", "refused"], "one to be refused", 30
    )


def test_one_of_two_hosts_with_the_same_public_ip_is_refused(two: World) -> None:
    h1, h2 = two.hosts
    network(h1, "app")
    web(h1, "one", "app", "-p", "8090:80")
    twin(two)
    holder, other = sorted(two.hosts, key=phase)
    told(other, f"with our own public IP {h1.address}", "give one of the two another public IP")
    refused_network(other)
    leases = two.store.values()
    assert len(leases) == 2  # h2 had one by its own public IP
    everyday(holder, two.visitor)
    assert two.store.values() == leases, "they do not fight"
    assert two.visitor.reaches(f"http://{h1.address}:8090/")
    two.start_plugin(h2)  # with its own public IP, as it was told,
    for name in leases:  # and without the key that is nobody's
        two.store.ctl("del", f"{FOLDER}{name}")
    two.meet(h1, h2)


def test_of_two_hosts_with_the_same_public_ip_the_first_keeps_its_lease(two: World) -> None:
    h1, h2 = two.hosts
    before = subnet(h1)
    network(h1, "app")
    twin(two)
    try:
        assert (phase(h1), phase(h2)) == ("held", "refused")
        assert subnet(h2) != before
    finally:
        two.start_plugin(h2)


def test_broken_leases_of_others(two: World) -> None:
    h1, h2 = two.hosts
    own = subnet(h1).partition("/")[0]
    traffic = two.talk()
    free = (str(n.network_address) for n in IPv4Network("10.2.0.0/16").subnets(new_prefix=24))
    taken = {subnet(h).partition("/")[0] for h in two.hosts}
    names = (f"{FOLDER}{block}-24" for block in free if block not in taken)
    texts = [
        "{", "[]", "",
        lease(50, PublicIP=None), lease(50, PublicIP=""), lease(50, PublicIP="127.0.0.1"),
        lease(50, PublicIP=h1.address), lease(50, BackendData={"VNI": 1, "VtepMAC": "nonsense"}),
        lease(50, BackendData=None), lease(50, BackendType="wireguard"),
    ]  # fmt: skip
    garbage = {
        f"{PREFIX}/subnetsXYZ/hello": "world",
        f"{FOLDER}hello": lease(50),
        f"{FOLDER}10.2.300.0-24": lease(50),
        f"{FOLDER}10.99.1.0-24": lease(50),
        f"{FOLDER}{own}-25": lease(50),
        **dict(zip(names, texts, strict=False)),
    }
    good = {subnet(h2): h2.address}
    for name, text in garbage.items():
        two.store.put(name, text)
    told(h1, *garbage)
    assert len(problems(h1).splitlines()) == len(garbage)
    assert peers(h1) == good
    two.start_plugin(h1)
    told(h1, *garbage)
    assert peers(h1) == good
    assert subnet(h1).startswith(own)
    everyday(h1, two.visitor)
    for name in garbage:
        two.store.ctl("del", name)
    two.meet(h1, h2)
    traffic.end()


# --- TLS and users ---


def talks(world: World) -> None:
    """Check that containers of both hosts reach one another."""
    world.meet(*world.hosts)
    ips = []
    for host in world.hosts:
        network(host, "safe")
        ips.append(web(host, "safe-web", "safe"))
    for host, ip in zip(world.hosts, reversed(ips), strict=True):
        wait_for(lambda: gets(host, "safe-web", f"http://{ip}/"), "the other host", 20)
    for host in world.hosts:
        host.docker("rm", "-f", "safe-web")
        host.docker("network", "rm", "safe")


def test_tls_with_client_certificates(two: World, tmp_path: Path) -> None:
    h1, _ = two.hosts
    node = two.store.node
    right, wrong = Authority(tmp_path), Authority(tmp_path, "other")
    cert, pem = right.issue("server", f"IP:{node.address},IP:127.0.0.1")
    store = Store(node, 1, 2479, [
        "--cert-file", str(cert), "--key-file", str(pem),
        "--trusted-ca-file", str(right.cert), "--client-cert-auth",
    ])  # fmt: skip
    good_cert, good_key = map(str, right.issue("client"))
    bad_cert, bad_key = map(str, wrong.issue("stranger"))
    store.login = ("--cacert", str(right.cert), "--cert", good_cert, "--key", good_key)
    store.start()
    store.put(CONFIG_KEY, CONFIG)
    good = {
        "FLANNELD_ETCD_ENDPOINTS": store.urls,
        "FLANNELD_ETCD_CAFILE": str(right.cert),
        "FLANNELD_ETCD_CERTFILE": good_cert,
        "FLANNELD_ETCD_KEYFILE": good_key,
    }
    for settings, words in (
        ({"FLANNELD_ETCD_CERTFILE": bad_cert, "FLANNELD_ETCD_KEYFILE": bad_key}, "our client cert"),
        ({"FLANNELD_ETCD_CAFILE": str(wrong.cert)}, "not signed by our CA"),
    ):
        two.start_fresh(h1, **{**good, **settings})
        told(h1, store.urls, words)
        no_lease_yet(h1)
    for host in two.hosts:
        two.start_fresh(host, **good)
    talks(two)
    store.kill()


def test_user_and_password(two: World) -> None:
    h1, _ = two.hosts
    store = Store(two.store.node, 1, 2579)
    prefix = "/other/place"
    store.start()
    for command in (
        "user add root:rootpw", "role add root", "user grant-role root root",
        f"user add flannel:{SECRET}", "role add flannel",
        f"role grant-permission flannel read {prefix}/config",
        f"role grant-permission flannel --prefix=true readwrite {prefix}/subnets",
        "user grant-role flannel flannel",
    ):  # fmt: skip
        store.ctl(*command.split())
    store.put(f"{prefix}/config", CONFIG)
    store.ctl("auth", "enable")
    good = {
        "FLANNELD_ETCD_ENDPOINTS": store.urls,
        "FLANNELD_ETCD_PREFIX": prefix,
        "FLANNELD_ETCD_USERNAME": "flannel",
        "FLANNELD_ETCD_PASSWORD": SECRET,
    }
    two.start_fresh(h1, **{**good, "FLANNELD_ETCD_PASSWORD": f"Wr0ng{SECRET}"})
    told(h1, "wrong user name or password")
    no_lease_yet(h1)
    two.start_fresh(h1, FLANNELD_ETCD_ENDPOINTS=store.urls, FLANNELD_ETCD_PREFIX=prefix)
    told(h1, "wants a user name and a password")
    no_lease_yet(h1)
    for host in two.hosts:
        two.start_fresh(host, **good)
    talks(two)
    store.kill()
    told(h1, "etcd cannot be reached")
    for host in two.hosts:
        for file in host.folder.glob("*.log"):
            assert SECRET not in file.read_text("utf-8", "replace"), file
        for file in host.folder.glob("fresh-*/*"):
            assert SECRET.encode() not in file.read_bytes(), file
