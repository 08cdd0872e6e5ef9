"""Watches and calls of a real etcd that is slow or silently dead."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from driver.errors import Compacted, Unavailable
from tests.bed import wait_for
from tests.e2e.etcd_bed import ALL, Cluster, Proxy, answers, took


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
