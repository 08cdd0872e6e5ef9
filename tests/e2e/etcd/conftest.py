"""A real etcd and one in memory, each with a network config."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.etcd_bed import Cluster, cluster
from tests.unit.etcd_fake import FakeRegistry
from tests.unit.etcd_member import CONFIG, CONFIG_KEY


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd")) as made:
        yield made


@pytest.fixture
def one(shared: Cluster) -> Cluster:
    """Yield an etcd of one member that holds a network config only."""
    shared.etcdctl("del", "--prefix", "/")
    shared.etcdctl("put", CONFIG_KEY, CONFIG)
    return shared


@pytest.fixture
def registry() -> FakeRegistry:
    made = FakeRegistry()
    made.change((CONFIG_KEY, CONFIG))
    return made
