"""A host with a link to the other hosts, and the adapters that carry an overlay."""

from contextlib import closing
from types import SimpleNamespace

import pytest

from driver.host.links import Links
from driver.host.netlink.monitor import Monitor
from driver.host.overlay import OverlayAdapter
from driver.model.objects import Plan, diff
from tests.kernel.overlays.sample import ALL


@pytest.fixture(autouse=True)
def underlay(host):
    host.ip(
        "link add eth0 up type veth peer name far",
        "link set far up",
        "addr add 192.168.77.11/24 dev eth0",
    )


@pytest.fixture
def monitor(host):  # noqa: ARG001  it works inside
    with closing(Monitor()) as made:
        yield made


@pytest.fixture
def overlays(monitor):
    with closing(OverlayAdapter(monitor)) as made:
        yield made


@pytest.fixture
def node(overlays, monitor):
    """Both adapters that carry an overlay, in their order, behind the face of one."""
    with closing(Links(monitor)) as netlink:

        def observe():
            return overlays.observe() | netlink.observe()

        def apply(plan):
            take, make = Plan(remove=plan.remove), Plan(plan.add, plan.change)
            for part, adapters in ((take, (netlink, overlays)), (make, (overlays, netlink))):
                for adapter in adapters:
                    adapter.apply(part.only(adapter.kinds))

        yield SimpleNamespace(observe=observe, apply=apply, watch=netlink.watch, netlink=netlink)


@pytest.fixture
def full(node):
    """A node with two peers."""
    node.apply(diff((), ALL))
    return node
