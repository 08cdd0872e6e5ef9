"""What the netlink adapter reports of changes that others make."""

import errno
import threading
from contextlib import closing

import pytest

from driver.host.netlink.monitor import Monitor
from driver.model.objects import Plan, diff
from driver.model.records import replace
from tests.kernel.adapters import drops, eventually
from tests.kernel.namespaces import LIMIT_S
from tests.kernel.netlink.sample import (
    ALL,
    BRIDGE,
    E1,
    E2,
    E3,
    LEASE,
    N1,
    N2,
    NETWORKS,
    V1,
    V2,
    V3,
    links,
)

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"link set {E1.host_end} down", E1.host_end),
        (f"link set {E1.host_end} mtu 1300", E1.host_end),
        (f"link set {E1.host_end} nomaster", E1.host_end),
        (f"link set {E1.host_end} master {N2.bridge}", E1.host_end),
        (f"link del {E1.container_end}", E1.host_end),
        (f"link set {N1.bridge} down", N1.bridge),
        (f"link del {N1.bridge}", N1.bridge),
        (f"addr del {N1.gateway} dev {N1.bridge}", N1.bridge),
        (f"route del unreachable {LEASE.subnet}", ""),
        ("link add br0 type bridge", ""),
        ("link add flannel.9 type vxlan id 9 dstport 8472 dev lo", ""),
        (f"route add default dev {N1.bridge}", ""),
        (f"link set {E1.host_end} group 5", E1.host_end),
        (f"link set {E1.host_end} alias other", E1.host_end),
        (f"link set {E1.host_end} type bridge_slave hairpin on", E1.host_end),
        (f"link set {E2.host_end} type bridge_slave hairpin off", E2.host_end),
        (f"link set {E1.host_end} down name flhother", E1.host_end),
        (f"link set {N1.bridge} mtu 1300", N1.bridge),
        (f"link set {N1.bridge} address 02:00:00:00:00:09", N1.bridge),
        (f"link set {N1.bridge} group 5", N1.bridge),
        (f"link set {N1.bridge} alias other", N1.bridge),
        (f"addr add 198.51.100.7/24 dev {N1.bridge}", N1.bridge),
        (f"route replace blackhole {LEASE.subnet} metric 91000", ""),
        ("route add unreachable 198.51.100.0/24 metric 91000 proto 91", ""),
    ],
)
def test_drift_is_reported(full, host, monitor, line, name):
    assert full.observe() == ALL
    monitor.after(host)
    host.ip(line)
    monitor.wait(name)


def test_what_is_foreign_is_reported_when_it_goes(netlink, host, monitor):  # noqa: ARG001
    host.ip("link add br0 up type bridge", "addr add 192.168.7.1/24 dev br0")
    host.ip("route add default via 192.168.7.254")
    for line in ("route del default", "link del br0"):
        monitor.after(host)
        host.ip(line)
        monitor.wait("")


def test_own_doings_are_not_reported(netlink, host, monitor, namespace):
    netlink.apply(diff((), NETWORKS))
    monitor.after(host)
    for veth in (V1, V2, V3):
        netlink.apply(Plan(add=(veth,)))
    sandbox = namespace()
    host.ip(f"link set {E1.container_end} netns {sandbox.path}")
    sandbox.ip(f"link set {E1.container_end} name eth0", "link set eth0 up")
    sandbox.ip(f"link set eth0 down name {E1.container_end}")
    assert monitor.after(host) == frozenset()
    netlink.apply(Plan(change=((V1, replace(V1, hairpin=True)),)))
    assert monitor.after(host) <= {E1.host_end}, "a look at it then finds it as it should be"
    netlink.apply(Plan(remove=(V3, V2, V1)))
    eventually(lambda: not links(host) & {E1.host_end, E2.host_end, E3.host_end})
    netlink.apply(Plan(remove=(BRIDGE,)))
    host.ip("link add veth0 up type veth peer name veth1", "link del veth0")
    assert monitor.after(host) == frozenset()


def test_lost_reports_are_reported(full, host):
    """The listener sleeps in its callback while more happens than its socket can hold."""
    names, entered, go, stop = set(), threading.Event(), threading.Event(), threading.Event()

    def changed(reported):
        names.update(reported)
        entered.set()
        assert go.wait(60)

    thread = threading.Thread(target=full.watch, args=(changed, stop))
    thread.start()
    try:
        while not entered.wait(0.1):
            host.ip("link add br0 type bridge", "link del br0")
        while not drops(host):
            for _ in range(100):
                full.apply(Plan(change=((V1, V1),)))
        host.ip(f"link del {E1.host_end}")
        names.clear()
        go.set()
        eventually(lambda: "" in names)
        host.ip(f"link del {E3.host_end}")
        eventually(lambda: E3.host_end in names)
    finally:
        go.set()
        stop.set()
        thread.join(LIMIT_S)


def test_watch_stops_soon(netlink):
    stop = threading.Event()
    thread = threading.Thread(target=netlink.watch, args=(lambda _: None, stop))
    thread.start()
    stop.set()
    thread.join(2)
    assert not thread.is_alive()


def test_links_that_cannot_be_listed_end_no_watch(host):  # noqa: ARG001
    """After reports were lost the links may change faster than they can be listed."""
    calls, stop, names = [], threading.Event(), []
    with closing(Monitor()) as monitor:

        def links():
            calls.append(1)
            if len(calls) < 4:
                raise OSError(errno.EAGAIN, "the list changed each time it was read")
            return {}

        def changed(reported):
            names.append(reported)
            if len(calls) == 4:
                stop.set()

        monitor.watch(links, changed, stop)
    assert names == [{""}] * 3
