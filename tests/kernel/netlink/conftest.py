"""The netlink adapter, empty and with a sample, and what it reports."""

from contextlib import closing

import pytest

from driver.host.links import Links
from driver.model.objects import diff
from tests.kernel.adapters import Listener
from tests.kernel.netlink.sample import ALL


@pytest.fixture
def netlink(host):  # noqa: ARG001  it works inside
    with closing(Links()) as made:
        yield made


@pytest.fixture
def full(netlink):
    """The adapter of a host that carries two networks and three endpoints."""
    netlink.apply(diff((), ALL))
    return netlink


@pytest.fixture
def monitor(netlink):
    """Yield what hears which links the adapter reports."""
    with Listener(netlink) as listener:
        yield listener
