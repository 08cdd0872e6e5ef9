"""The etcd client and the membership on a real etcd."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from driver.errors import Compacted, FlannelError, Unavailable
from driver.etcd import Etcd
from driver.flannel import lease_value
from driver.lease_steps import Terms
from driver.model import Peer
from driver.registry import Span
from tests.bed import wait_for
from tests.e2e.etcd_bed import Authority, Cluster, Proxy, answers, cluster, supports
from tests.unit.etcd_contract import check_registry
from tests.unit.etcd_member import CONFIG, PREFIX, Member, vtep

FOLDER = f"{PREFIX}/subnets/"
ALL = Span(f"{PREFIX}/", prefix=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd")) as made:
        yield made


@pytest.fixture
def one(shared: Cluster) -> Cluster:
    """Give an etcd of one member with a network config and nothing else."""
    shared.etcdctl("del", "--prefix", "/")
    shared.etcdctl("put", f"{PREFIX}/config", CONFIG)
    return shared


def value(number: int) -> str:
    own = vtep(number)
    return lease_value(own.public_ip, "vxlan", 1, own.mac)


def peer(number: int, subnet: str) -> Peer:
    own = vtep(number)
    return Peer(IPv4Network(subnet), own.public_ip, "vxlan", own.mac)


def took(call: Callable[[], object]) -> tuple[float, FlannelError]:
    """Give how long a call took to fail, and how."""
    begun = time.monotonic()
    with pytest.raises(FlannelError) as caught:
        call()
    return time.monotonic() - begun, caught.value


# --- the client ---


def test_the_real_one_meets_the_contract(one: Cluster) -> None:
    check_registry(one.client(), "/contract")


def test_a_name_does_as_well_as_an_address(one: Cluster) -> None:
    port = one.servers[0].port
    assert answers(one.client(f"http://localhost:{port}"))
    assert answers(one.client(f"127.0.0.1:{port}"))
    assert answers(one.client(f"http://nosuch.invalid:1,http://localhost:{port}/"))


def test_five_thousand_leases_are_read_at_once(one: Cluster) -> None:
    client = one.client()
    lease = client.grant(600)
    for n in range(5000):
        client.put_if(f"{FOLDER}10.{n >> 8}.{n & 255}.0-24", value(20), 0, lease)
    entries, _ = client.read(ALL)
    assert len(entries) == 5001
    client.revoke(lease)
    with closing(client.watch({ALL: 1})) as feed:
        count = 0
        while count < 10002:
            batch = feed.next(20)
            assert batch
            count += len(batch.events)


def test_an_endpoint_that_is_no_etcd(one: Cluster) -> None:
    with talker() as web, silence() as port:
        limit = 1.0
        for url, words in (
            (f"http://127.0.0.1:{web}", "no etcd"),
            (f"http://127.0.0.1:{port}", "no answer in time"),
            ("http://nosuch.invalid:2379", "name is not known"),
            (f"https://127.0.0.1:{one.servers[0].port}", "TLS"),
        ):
            client = one.client(url, limit)
            for call in (partial(client.read, ALL), partial(client.watch, {ALL: 1})):
                seconds, error = took(call)
                assert seconds < limit + 2
                assert words in str(error), error
                assert url in str(error)
        bad = f"http://127.0.0.1:{web},http://127.0.0.1:{port},https://127.0.0.1:{web}"
        client = one.client(f"{bad},{one.urls}")
        assert client.read(ALL)[0]
        begun = time.monotonic()
        assert client.read(ALL)[0]
        assert time.monotonic() - begun < 1  # it does not ask the bad ones again


@contextmanager
def talker() -> Iterator[int]:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@contextmanager
def silence() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_calls_to_a_slow_etcd_end_by_their_limit(one: Cluster) -> None:
    with closing(Proxy(one.servers[0].port)) as proxy:
        client = one.client(proxy.url, 1.0)
        client.read(ALL)
        feed = client.watch({ALL: 1})
        proxy.delay_s = 30
        for call in (
            lambda: client.read(ALL),
            lambda: client.grant(10),
            lambda: client.put_if("/x", "x", 0),
            lambda: client.delete_if("/x", 1),
            lambda: client.watch({ALL: 1}),
        ):
            seconds, error = took(call)
            assert seconds < 3
            assert isinstance(error, Unavailable)
        # and so does a watch that nothing comes of any more
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            while time.monotonic() < begun + 60:
                feed.next(1)
        assert time.monotonic() - begun < 30
        feed.close()
        proxy.delay_s = 0
        wait_for(lambda: answers(client), "etcd to answer again")


def test_a_connection_gone_dead_is_noticed(one: Cluster) -> None:
    with closing(Proxy(one.servers[0].port)) as proxy:
        client = one.client(proxy.url)
        with closing(client.watch({ALL: 1})) as feed:
            wait_for(lambda: feed.next(1), "the first events")
            proxy.dead = True
            begun = time.monotonic()
            with pytest.raises(Unavailable):
                while time.monotonic() < begun + 60:
                    feed.next(1)
        assert time.monotonic() - begun < 30


def test_a_history_that_is_gone_is_told(one: Cluster) -> None:
    client = one.client()
    _, revision = client.read(ALL)
    one.etcdctl("put", "/x", "1")
    one.etcdctl("put", "/x", "2")
    one.compact()
    with pytest.raises(Compacted), closing(client.watch({ALL: revision})) as feed:
        feed.next(20)


def test_three_members_and_one_is_killed(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as three:
        client = three.client()
        with closing(client.watch({Span("/n"): 1})) as feed:
            for n in range(60):
                if n == 20:
                    three.servers[0].kill()
                if n == 40:
                    three.servers[0].start()
                entries, _ = client.read(Span("/n"))
                before = entries[0].revision if entries else 0
                assert client.put_if("/n", str(n), before)
            with pytest.raises(Unavailable):
                while feed.next(5):
                    pass
        # a member that is frozen costs a call some time, and does not make it fail
        wait_for(lambda: all(answers(three.client(s.url)) for s in three.servers), "all members")
        client.read(Span("/n"))
        for server in three.servers:
            server.freeze()
            try:
                wait_for(lambda: answers(client), "a new leader, if it was that one")
                assert client.read(Span("/n"))[0][0].value == b"59"
            finally:
                server.thaw()
            wait_for(lambda: all(answers(three.client(s.url)) for s in three.servers), "all")


# --- TLS and users ---


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right, wrong = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = right.issue("server")
    options = ["--cert-file", str(cert), "--key-file", str(key),
               "--trusted-ca-file", str(right.cert), "--client-cert-auth"]  # fmt: skip
    mine: dict[str, Any] = dict(
        zip(("certfile", "keyfile"), map(str, right.issue("client")), strict=True)
    )
    theirs: dict[str, Any] = dict(
        zip(("certfile", "keyfile"), map(str, wrong.issue("stranger")), strict=True)
    )
    with cluster(tmp_path, 1, options) as etcd:
        port = etcd.servers[0].port
        good = etcd.client(cafile=str(right.cert), **mine)
        wait_for(lambda: answers(good), "etcd over TLS")
        check_registry(good, "/contract")
        assert answers(etcd.client(f"https://localhost:{port}", cafile=str(right.cert), **mine))
        for settings, words in (
            ({"cafile": str(wrong.cert), **mine}, "not signed by our CA"),
            ({**mine}, "not signed by our CA"),
            ({"cafile": str(right.cert)}, "client certificate"),
            ({"cafile": str(right.cert), **theirs}, "client certificate"),
        ):
            seconds, error = took(partial(etcd.client(limit_s=2, **settings).read, ALL))
            assert seconds < 5
            assert words in str(error), error
        _, error = took(lambda: etcd.client(f"http://127.0.0.1:{port}", 2).read(ALL))
        assert "127.0.0.1" in str(error)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    cert, key = right.issue("misnamed", "DNS:elsewhere.invalid")
    options = ["--cert-file", str(cert), "--key-file", str(key)]
    (tmp_path / "second").mkdir()
    with cluster(tmp_path / "second", 1, options) as etcd:
        _, error = took(lambda: etcd.client(cafile=str(right.cert), limit_s=2).read(ALL))
        assert "for another name" in str(error)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give an etcd with users, whose tokens last two seconds."""
    options = ["--auth-token", "simple"]
    if supports("--auth-token-ttl"):
        options += ["--auth-token-ttl", "2"]
    with cluster(tmp_path_factory.mktemp("guarded"), 1, options) as etcd:
        for command in (
            "user add root:rootpw", "role add root", "user grant-role root root",
            "user add flannel:S3cretPassword", "role add flannel",
            f"role grant-permission flannel read {PREFIX}/config",
            f"role grant-permission flannel --prefix=true readwrite {PREFIX}/subnets",
            "user grant-role flannel flannel",
        ):  # fmt: skip
            etcd.etcdctl(*command.split())
        etcd.etcdctl("put", f"{PREFIX}/config", CONFIG)
        etcd.etcdctl("auth", "enable")
        yield etcd


LOGIN: dict[str, Any] = {"username": "flannel", "password": "S3cretPassword"}


def test_a_password_that_is_right_and_one_that_is_wrong(
    guarded: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = Span(f"{PREFIX}/config")
    assert guarded.client(**LOGIN).read(config)[0]
    for settings, words in (
        ({}, "wants a user name and a password"),
        ({**LOGIN, "password": "Wr0ngPassword"}, "wrong user name or password"),
        ({**LOGIN, "username": "nobody"}, "wrong user name or password"),
    ):
        client = guarded.client(**settings)
        for refused in (partial(client.read, config), partial(client.put_if, "/x", "x", 0)):
            _, error = took(refused)
            assert words in str(error), error
            assert not isinstance(error, Unavailable)
            assert "Password" not in f"{error!r} {error.__cause__!r} {error.__context__!r}"
    client = guarded.client(**LOGIN)
    denied: tuple[Callable[[], object], ...] = (
        lambda: client.put_if(f"{PREFIX}/config", "x", 0),
        lambda: client.read(Span("/elsewhere")),
        lambda: client.watch({Span("/elsewhere"): 1}),
    )
    for call in denied:
        _, error = took(call)
        assert "permission denied" in str(error), error
    assert "Password" not in caplog.text
    assert "Password" not in repr(client.__dict__["_settings"])


def test_a_token_that_has_run_out_is_renewed(guarded: Cluster) -> None:
    client = guarded.client(**LOGIN)
    span = Span(f"{PREFIX}/subnets", prefix=True)
    client.read(span)
    before = token(client)
    assert before

    def gone() -> bool:
        """Ask with the old token alone, which does not make it younger once it is gone."""
        client.read(span)
        return token(client) != before

    wait_for(gone, "the token to run out", 60, every_s=4)
    stale(client)
    with closing(client.watch({span: 1})) as feed:
        stale(client)
        key = FOLDER + "10.5.77.0-24"
        assert client.put_if(key, "x", 0, client.grant(60))
        batch = wait_for(lambda: feed.next(1), "the event")
        assert batch
        assert batch.events[0].key == key
        stale(client)
        assert client.delete_if(key, client.read(span)[0][0].revision)


def token(client: Etcd) -> str:
    found: str = client.__dict__["_token"]
    return found


def stale(client: Etcd) -> None:
    """Have a client use a token that etcd does not know, as after etcd's restart."""
    client.__dict__["_token"] = "aaaaaaaaaaaaaaaa.1"  # noqa: S105


def test_a_membership_with_few_rights(guarded: Cluster) -> None:
    client = guarded.client(**LOGIN)
    with Member(client, vtep(11), terms=Terms(30, 28)) as host:
        host.until("held", problems=())
        stale(client)
        host.wait(lambda _: host.states.count("renewing") > 1, "renewals")
        assert "unreachable" not in host.states


# --- the membership ---


def test_hosts_find_each_other(one: Cluster) -> None:
    hosts = [Member(one.client(), vtep(10 + n)) for n in range(6)]
    for host in hosts:
        host.__enter__()
    try:
        for host in hosts:
            host.wait(lambda now: now.state == "held" and len(now.peers) == 5, "five peers")
        assert len({host.subnet for host in hosts}) == 6
        assert {one.values()[host.key] for host in hosts} == {value(10 + n) for n in range(6)}
        ttl = one.etcdctl("get", hosts[0].key)["kvs"][0]["lease"]
        left = one.etcdctl("lease", "timetolive", f"{ttl:x}")
        assert 86000 < left["ttl"] <= left["granted-ttl"] == 86400
    finally:
        for host in hosts:
            host.__exit__(None, None, None)


@pytest.mark.parametrize("_round", range(3))
def test_two_at_the_same_time_never_get_the_same(one: Cluster, _round: int) -> None:
    small = CONFIG.replace("/16", "/24").replace('"Backend"', '"SubnetLen": 27, "Backend"')
    one.etcdctl("put", f"{PREFIX}/config", small)
    hosts = [Member(one.client(), vtep(10 + n)) for n in range(7)]
    for host in hosts:
        host.__enter__()
    try:
        for host in hosts:
            host.wait(lambda now: now.state == "held" and len(now.peers) == 6, "six peers")
        assert len({host.subnet for host in hosts}) == 7
    finally:
        for host in hosts:
            host.__exit__(None, None, None)


def test_all_of_etcd_down_and_back(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as three:
        three.etcdctl("put", f"{PREFIX}/config", CONFIG)
        three.etcdctl("put", FOLDER + "10.5.200.0-24", value(20))
        with Member(three.client(limit_s=2), vtep(11)) as host:
            subnet = host.until("held", peers={peer(20, "10.5.200.0/24")}).subnet
            three.servers[1].kill()
            three.etcdctl("put", FOLDER + "10.5.201.0-24", value(21))
            host.wait(lambda now: len(now.peers) == 2, "a second peer")
            three.kill()
            host.until("unreachable", subnet=subnet)
            assert len(host.now.peers) == 2
            three.start()
            host.until("held", subnet=subnet, problems=())
            three.etcdctl("del", FOLDER + "10.5.200.0-24")
            host.until("held", peers={peer(21, "10.5.201.0/24")})
            assert {s.subnet for s in host.seen if s.subnet} == {subnet}


def test_etcd_that_comes_back_empty(tmp_path: Path) -> None:
    with cluster(tmp_path) as etcd:
        etcd.etcdctl("put", f"{PREFIX}/config", CONFIG)
        for n in range(30):
            etcd.etcdctl("put", FOLDER + f"10.5.{200 + n}.0-24", value(20 + n))
        with Member(etcd.client(limit_s=2), vtep(11)) as host:
            host.wait(lambda now: now.state == "held" and len(now.peers) == 30, "peers")
            subnet = host.subnet
            etcd.kill()
            (tmp_path / "m0").rename(tmp_path / "old")
            etcd.start()
            host.until("held", subnet=subnet, peers=frozenset())
            wait_for(lambda: list(etcd.values()) == [host.key], "the lease in the new etcd")
            etcd.etcdctl("put", f"{PREFIX}/config", CONFIG)
            etcd.etcdctl("put", FOLDER + "10.5.200.0-24", value(20))
            host.until("held", peers={peer(20, "10.5.200.0/24")}, problems=())


def test_compacted_while_cut_off(one: Cluster) -> None:
    with closing(Proxy(one.servers[0].port)) as proxy:
        one.etcdctl("put", FOLDER + "10.5.200.0-24", value(20))
        one.etcdctl("put", FOLDER + "10.5.201.0-24", value(21))
        with Member(one.client(proxy.url, 2), vtep(11)) as host:
            host.wait(lambda now: now.state == "held" and len(now.peers) == 2, "two peers")
            subnet = host.subnet
            proxy.dead = True
            host.until("unreachable")
            one.etcdctl("del", FOLDER + "10.5.200.0-24")
            one.etcdctl("put", FOLDER + "10.5.201.0-24", value(22))
            one.etcdctl("put", FOLDER + "10.5.202.0-24", value(23))
            one.compact()
            assert len(host.now.peers) == 2
            proxy.dead = False
            peers = {peer(22, "10.5.201.0/24"), peer(23, "10.5.202.0/24")}
            host.until("held", peers=peers, subnet=subnet, problems=())


def test_cut_off_for_longer_than_the_lease_lasts(one: Cluster) -> None:
    proxy = Proxy(one.servers[0].port)
    with closing(proxy), Member(one.client(proxy.url, 2), vtep(11), terms=Terms(6, 3)) as host:
        subnet = host.until("held").subnet
        key = host.key
        proxy.dead = True
        wait_for(lambda: key not in one.values(), "the lease to run out")
        host.wait(lambda now: "has run out" in str(now.problems), "a word about it")
        assert host.now.subnet == subnet
        proxy.dead = False
        host.until("held", subnet=subnet)
        assert one.values()[key] == value(11)
        # and once more, while another host takes it
        host.in_use = True
        proxy.dead = True
        wait_for(lambda: key not in one.values(), "the lease to run out")
        one.etcdctl("put", key, value(20))
        proxy.dead = False
        host.until("lost")
        assert one.values()[key] == value(20)
        one.etcdctl("del", key)
        host.until("held", subnet=subnet)


def test_keys_deleted_stolen_and_wiped(one: Cluster) -> None:
    with Member(one.client(), vtep(11)) as host, Member(one.client(), vtep(12)) as other:
        host.wait(lambda now: now.state == "held" and len(now.peers) == 1, "a peer")
        subnet, key = host.subnet, host.key
        one.etcdctl("del", key)
        wait_for(lambda: one.values().get(key) == value(11), "the lease")
        one.etcdctl("del", "--prefix", "/")
        wait_for(lambda: set(one.values()) == {key, other.key}, "both leases")
        one.etcdctl("put", f"{PREFIX}/config", CONFIG)
        host.until("held", subnet=subnet, problems=())
        host.in_use = True
        one.etcdctl("put", key, value(30))
        host.until("lost", subnet=None, peers={peer(12, str(other.subnet))})
        other.wait(lambda now: now.peers == {peer(30, str(subnet))}, "the thief as a peer")
        host.in_use = False
        moved = host.until("moved").subnet
        assert moved not in (None, subnet)
        assert one.values()[key] == value(30)
        # a thief who names our public IP: told once that we had it first, and yielded to then
        twin = replace(vtep(11), mac=vtep(99).mac)
        text = lease_value(twin.public_ip, "vxlan", 1, twin.mac)
        mine = host.key
        one.etcdctl("put", mine, text)
        wait_for(lambda: one.values()[mine] == value(11), "our lease")
        one.etcdctl("put", mine, text)
        host.until("refused")
        assert list(one.values().values()).count(text) == 1


def test_garbage_of_all_kinds_removes_nobody(one: Cluster) -> None:
    one.etcdctl("put", FOLDER + "10.5.200.0-24", value(20))
    good = {peer(20, "10.5.200.0/24")}
    with Member(one.client(), vtep(11)) as host:
        host.until("held", peers=good)
        own = host.subnet
        garbage = {
            f"{PREFIX}/subnetsXYZ/hello": "world",
            FOLDER + "hello": "world",
            FOLDER + "10.5.201.0-24": "{",
            FOLDER + "10.5.202.0-24": value(21).replace('"192.0.2.21"', "null"),
            FOLDER + "10.5.203.0-24": value(21).replace("192.0.2.21", ""),
            FOLDER + "10.5.204.0-24": value(21).replace("192.0.2.21", "127.0.0.1"),
            FOLDER + "10.5.205.0-24": value(21).replace("192.0.2.21", "192.0.2.11"),
            FOLDER + "10.5.206.0-24": value(21).replace("02:00:00:00:00:15", "nonsense"),
            FOLDER + "10.5.207.0-24": value(21).replace("vxlan", "wireguard"),
            FOLDER + "10.6.1.0-24": value(21),
            FOLDER + f"{own.network_address}-25": value(21),
            FOLDER + f"{own.network_address}-24&fd00::-64": value(21),
        }
        for key, text in garbage.items():
            one.etcdctl("put", key, text)
        now = host.wait(lambda now: len(now.problems) == len(garbage), "all problems")
        assert now.peers == good
        assert (now.state, now.subnet) == ("held", own)
        for key in garbage:
            one.etcdctl("del", key)
        host.until("held", problems=(), peers=good)
        assert {s.peers for s in host.seen if s.state == "held"} <= {frozenset(good)}
