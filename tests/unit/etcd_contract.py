"""The contract of `registry.Registry`, for the fake and for the real etcd."""

from __future__ import annotations

from contextlib import closing

import pytest

from driver.errors import Compacted, FlannelError
from driver.flannel.etcd.registry import Entry, EventBatch, KeyRange, Registry, Watch

WAIT_S = 20.0


def check_registry(registry: Registry, root: str) -> None:
    """Check a store that has no keys below `root`."""
    check_keys(registry, f"{root}/keys")
    check_leases(registry, f"{root}/leases")
    check_watch(registry, f"{root}/watch")


def check_keys(registry: Registry, root: str) -> None:
    one, two = f"{root}/1", f"{root}/2"
    everything = KeyRange(f"{root}/", prefix=True)
    assert registry.read(everything)[0] == ()
    first = registry.put_if(two, "b", 0)
    assert first
    assert registry.put_if(two, "x", 0) is None
    assert registry.put_if(two, "x", first + 1) is None
    assert registry.put_if(one, "x", first) is None
    second = registry.put_if(one, "a", 0)
    assert second
    assert second > first
    entries, revision = registry.read(everything)
    assert entries == (Entry(one, b"a", second), Entry(two, b"b", first))
    assert revision >= second
    assert registry.read(KeyRange(one))[0] == (Entry(one, b"a", second),)
    assert registry.read(KeyRange(root))[0] == ()
    third = registry.put_if(two, "c", first)
    assert third
    assert registry.read(KeyRange(two))[0] == (Entry(two, b"c", third),)
    assert not registry.delete_if(two, first)
    assert registry.delete_if(two, third)
    assert not registry.delete_if(two, third)
    assert registry.read(everything)[0] == (Entry(one, b"a", second),)


def check_leases(registry: Registry, root: str) -> None:
    one, two = registry.grant(60), registry.grant(60)
    assert one != two
    assert registry.put_if(f"{root}/1", "a", 0, one)
    revision = registry.put_if(f"{root}/2", "b", 0, one)
    assert revision
    assert registry.put_if(f"{root}/2", "b", revision, two)
    registry.revoke(one)
    assert [e.key for e in registry.read(KeyRange(root, prefix=True))[0]] == [f"{root}/2"]
    registry.revoke(two)
    assert registry.read(KeyRange(root, prefix=True))[0] == ()


def check_watch(registry: Registry, root: str) -> None:
    many, single = KeyRange(f"{root}/m", prefix=True), KeyRange(f"{root}/s")
    _, revision = registry.read(many)
    lease = registry.grant(60)
    first = registry.put_if(f"{root}/m1", "a", 0, lease)
    assert first
    with closing(registry.watch({many: revision + 1, single: revision + 1})) as feed:
        assert following(feed) == EventBatch(many, first, (Entry(f"{root}/m1", b"a", first),))
        second = registry.put_if(f"{root}/s", "b", 0)
        assert second
        assert registry.put_if(f"{root}/s2", "not watched", 0)
        assert following(feed) == EventBatch(single, second, (Entry(f"{root}/s", b"b", second),))
        assert feed.next(0) is None
        third = registry.put_if(f"{root}/m2", "c", 0, lease)
        assert third
        following(feed)
        registry.revoke(lease)  # two keys go in one transaction
        gone = following(feed)
        assert {(e.key, e.value) for e in gone.events} == {
            (f"{root}/m1", None),
            (f"{root}/m2", None),
        }
        assert gone.revision == gone.events[0].revision > third
    with pytest.raises(FlannelError):
        feed.next(WAIT_S)
    with closing(registry.watch({single: second})) as feed:
        assert following(feed).revision == second
    with pytest.raises(Compacted):
        registry.watch({single: gone.revision + 1000})


def following(feed: Watch) -> EventBatch:
    batch = feed.next(WAIT_S)
    assert batch is not None
    return batch
