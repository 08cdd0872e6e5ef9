"""A fresh network namespace for every test, and backends of the firewall in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from driver.host.firewall.nft import NftFirewall
from driver.model.objects import diff
from tests.kernel.firewalls import FIREWALLS
from tests.kernel.namespaces import Lab, Namespace
from tests.kernel.sample import WANTED


@pytest.fixture
def namespace() -> Iterator[Callable[[], Namespace]]:
    """Makes further namespaces."""
    assert os.geteuid() == 0, "the kernel tests need root"
    with ExitStack() as stack:

        def make() -> Namespace:
            made = Namespace()
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(autouse=True)
def host(namespace: Callable[[], Namespace]) -> Iterator[Namespace]:
    """The namespace a test runs in."""
    with namespace() as made:
        yield made


@pytest.fixture
def lab(host: Namespace, namespace: Callable[[], Namespace]) -> Lab:
    """A host that forwards."""
    return Lab(host, namespace)


@pytest.fixture
def nft(host):  # noqa: ARG001  it is made inside
    with closing(NftFirewall()) as made:
        yield made


@pytest.fixture
def full(nft):
    nft.apply(diff(nft.observe(), WANTED))
    return nft


@pytest.fixture(params=FIREWALLS)
def make_firewall(request):
    """What makes one of the firewall's backends, in the namespace of the moment."""
    return FIREWALLS[request.param]


@pytest.fixture
def firewall(host, make_firewall):  # noqa: ARG001  it is made inside
    """A backend of the firewall that has not done anything yet."""
    with closing(make_firewall()) as made:
        yield made


@pytest.fixture
def loaded(firewall):
    """A backend of the firewall with the sample's networks and ports."""
    firewall.apply(diff(firewall.observe(), WANTED))
    return firewall
