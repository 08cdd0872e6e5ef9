"""What is reported of changes to an overlay."""

import pytest

from driver.model.objects import diff
from tests.kernel.adapters import Listener, drops
from tests.kernel.overlays.sample import ALL, FDB, NAME, OURS, peer, run, wanted

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    "line",
    [
        f"link set {NAME} down",
        f"link del {NAME}",
        f"link set {NAME} mtu 1300",
        f"link set {NAME} address 02:00:00:00:00:01",
        "link del eth0",
        f"addr del 10.5.10.0/32 dev {NAME}",
        f"neigh del 10.5.24.0 dev {NAME}",
        f"bridge fdb del {FDB.mac} dev {NAME}",
        f"route del 10.5.24.0/24 {OURS}",
        f"link set {NAME} alias other",
        f"link set {NAME} group 5",
        f"link set {NAME} type vxlan learning",
        f"addr add 198.51.100.7/32 dev {NAME}",
        f"neigh replace 10.5.24.0 lladdr 02:00:00:00:00:09 dev {NAME} nud permanent",
        f"neigh replace 10.5.24.0 lladdr 02:00:00:00:00:09 dev {NAME} nud reachable",
        f"neigh add 10.5.99.0 lladdr 02:00:00:00:00:09 dev {NAME} nud permanent",
        f"bridge fdb replace {FDB.mac} dev {NAME} dst 192.168.77.99 self permanent",
        f"bridge fdb replace {FDB.mac} dev {NAME} dst 192.168.77.99 self static",
        f"bridge fdb add 02:00:00:00:00:09 dev {NAME} dst 192.168.77.99 self permanent",
        f"route change 10.5.24.0/24 via 10.5.24.9 dev {NAME} onlink metric 91000",
        f"route change 10.5.24.0/24 via 10.5.24.9 dev {NAME} onlink {OURS}",
        "route replace blackhole 10.5.24.0/24 metric 91000",
        f"route add 10.5.99.0/24 via 10.5.99.0 dev {NAME} onlink {OURS}",
        "addr add 192.168.77.12/24 dev eth0",
        "addr del 192.168.77.11/24 dev eth0",
        "link set eth0 mtu 1400",
    ],
)
def test_drift_is_reported(full, host, line):
    with Listener(full) as monitor:
        monitor.after(host)
        run(host, line)
        monitor.wait("")


def test_uplink_that_comes_back_is_reported(full, host):
    run(host, "link set eth0 down")
    with Listener(full) as monitor:
        monitor.after(host)
        run(host, "link set eth0 up")
        monitor.wait("")


def test_thousands_of_peers_that_come_are_no_news(full, host):
    with Listener(full) as monitor:
        monitor.after(host)
        many = wanted([peer(number) for number in range(20, 250)])
        full.apply(diff(ALL, many))
        run(host, "neigh add 192.168.77.9 lladdr 02:00:00:00:00:01 dev eth0 nud stale")
        run(host, "neigh del 192.168.77.9 dev eth0")
        assert monitor.after(host) == frozenset()
    assert drops(host) == 0
