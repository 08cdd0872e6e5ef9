"""The fake etcd keeps the contract of the real one."""

from __future__ import annotations

import pytest

from driver.errors import Compacted
from driver.flannel.etcd.registry import KeyRange
from tests.unit.etcd_contract import check_registry
from tests.unit.etcd_fake import FakeRegistry


def test_the_fake_meets_the_contract() -> None:
    check_registry(FakeRegistry(), "/contract")


def test_the_fake_forgets_what_is_compacted() -> None:
    registry = FakeRegistry()
    registry.change(("/a", "1"))
    registry.compact()
    with pytest.raises(Compacted):
        registry.watch({KeyRange("/a"): 2})
    assert registry.watch({KeyRange("/a"): 3}).next(0) is None
