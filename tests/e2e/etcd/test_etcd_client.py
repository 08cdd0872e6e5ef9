"""The client of a real etcd: names, wrong endpoints, many leases, members that fail."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from driver.errors import Unavailable
from driver.flannel.etcd.registry import KeyRange
from tests.bed import wait_for
from tests.e2e.etcd_bed import ALL, Cluster, answers, cluster, took
from tests.unit.etcd_contract import check_registry
from tests.unit.etcd_member import FOLDER, value


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
            (f"http://127.0.0.1:{web}", "not etcd"),
            (f"http://127.0.0.1:{port}", "no answer in time"),
            ("http://nosuch.invalid:2379", "name is unknown"),
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


def test_three_members_and_one_is_killed(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as three:
        client = three.client()
        with closing(client.watch({KeyRange("/n"): 1})) as feed:
            for n in range(60):
                if n == 20:
                    three.servers[0].kill()
                if n == 40:
                    three.servers[0].start()
                entries, _ = client.read(KeyRange("/n"))
                before = entries[0].revision if entries else 0
                assert client.put_if("/n", str(n), before)
            with pytest.raises(Unavailable):
                while feed.next(5):
                    pass
        # a member that is frozen costs a call some time, and does not make it fail
        wait_for(lambda: all(answers(three.client(s.url)) for s in three.servers), "all members")
        client.read(KeyRange("/n"))
        for server in three.servers:
            server.freeze()
            try:
                wait_for(lambda: answers(client), "a new leader, if it was that one")
                assert client.read(KeyRange("/n"))[0][0].value == b"59"
            finally:
                server.thaw()
            wait_for(lambda: all(answers(three.client(s.url)) for s in three.servers), "all")
