"""Bridges, veths and settings on a real kernel: made, mended and removed."""

import json
import threading
from contextlib import closing
from pathlib import Path

import pytest

from driver.core.bridge import plan_endpoint
from driver.host.links import BATCH, Links
from driver.host.netlink.constants import DOOMED, PROTOCOL
from driver.model.objects import (
    Bridge,
    HostObject,
    LinkAddress,
    Plan,
    Sysctl,
    UnreachableRoute,
    Veth,
    diff,
)
from driver.model.records import replace
from tests.kernel.adapters import eventually, facts_of, refusals
from tests.kernel.namespaces import LIMIT_S
from tests.kernel.netlink.sample import (
    ADDRESS,
    ALL,
    BRIDGE,
    E1,
    E2,
    E3,
    LEASE,
    N1,
    N2,
    NO_IPV6,
    V1,
    V2,
    V3,
    endpoint,
    links,
    repair,
)
from tests.unit.contract import check_adapter, check_failure

pytestmark = pytest.mark.kernel


def test_keeps_the_contract(netlink):
    objects: list[HostObject] = [BRIDGE, V1, V2, ADDRESS, NO_IPV6, UnreachableRoute(LEASE.subnet)]
    check_adapter(netlink, objects, (V1, replace(V1, hairpin=True)))
    check_adapter(netlink, objects, (BRIDGE, replace(BRIDGE, mtu=1460, mac="02:66:00:00:00:01")))
    absent = replace(ADDRESS, link="fl-absent")
    check_failure(netlink, [BRIDGE], absent, "fl-absent is missing")


def test_makes_what_is_planned(full):
    assert full.observe() == ALL
    assert not diff(full.observe(), ALL)
    full.apply(diff((), ALL))
    assert full.observe() == ALL
    ends = {e.host_end for e in (E1, E2, E3)} | {e.container_end for e in (E1, E2, E3)}
    assert full.links() == ends | {N1.bridge, N2.bridge}
    full.apply(diff(ALL, ()))
    eventually(lambda: not full.observe() and not full.links())


def test_container_end_is_as_planned(full, host):
    assert full.links()
    shown = json.loads(host.run("ip", "-j", "link", "show", E1.container_end))[0]
    assert (shown["address"], shown["mtu"]) == (E1.mac, N1.mtu)


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (f"link set {E1.host_end} down", {Veth}),
        (f"link set {E1.host_end} mtu 1300", {Veth}),
        (f"link set {E1.host_end} nomaster", {Veth}),
        (f"link set {E1.host_end} master {N2.bridge}", {Veth}),
        (f"link set {E2.host_end} type bridge_slave hairpin off", {Veth}),
        (f"link set {E1.host_end} alias x", {Veth}),
        (f"link set {E1.host_end} group 0", {Veth}),
        (f"link set {E1.host_end} group {DOOMED}", {Veth}),
        (f"link del {E1.host_end}", {Veth}),
        (f"link set {N1.bridge} down", {Bridge}),
        (f"link set {N1.bridge} mtu 1300", {Bridge}),
        (f"link set {N1.bridge} address 02:66:00:00:00:01", {Bridge}),
        (f"link set {N1.bridge} alias x", {Bridge}),
        (f"link del {N1.bridge}", {Bridge, Veth, LinkAddress, Sysctl}),
        (f"addr del {N1.gateway} dev {N1.bridge}", {LinkAddress}),
        (f"addr add 10.9.9.9/32 dev {N1.bridge}", {LinkAddress}),
        (f"route del unreachable {LEASE.subnet}", {UnreachableRoute}),
        (f"route add unreachable 10.9.0.0/16 proto {PROTOCOL} metric 91000", {UnreachableRoute}),
    ],
)
def test_drift_is_seen_and_repaired(full, host, line, kinds):
    host.ip(line)
    touched = repair(full)
    assert {type(t) for t in touched.add + touched.remove} | {
        type(new) for _, new in touched.change
    } == kinds


def test_setting_is_repaired(full, host):
    host.sysctl(f"ipv6/conf/{N1.bridge}/disable_ipv6", "0")
    assert {new for _, new in repair(full).change} == {NO_IPV6}


def test_bridge_without_ipv6_is_whole(full, host):
    """Below 1280 bytes the kernel takes IPv6 off a link, and its settings' folder away."""
    small = {replace(t, mtu=1200) if isinstance(t, Bridge | Veth) else t for t in ALL}
    full.apply(diff(ALL, small))
    with host:
        assert not Path("/proc/sys/net/ipv6/conf", N1.bridge).exists()
    assert full.observe() == small
    full.apply(Plan(add=(NO_IPV6,)))


def test_bridge_keeps_its_mtu_without_ports(full):
    full.apply(Plan(remove=(V1, V2)))
    eventually(lambda: E1.host_end not in full.links())
    assert not diff(full.observe(), ALL - {V1, V2})


def test_leftovers_are_removed_even_if_down(full, host):
    host.ip(f"link set {E1.host_end} down", f"link set {N1.bridge} down")
    full.apply(diff(full.observe(), ()))
    eventually(lambda: links(host) == {"lo"})


def test_container_end_may_move(full, host, namespace):
    sandbox = namespace()
    host.ip(f"link set {E1.container_end} netns {sandbox.path}")
    sandbox.ip(f"link set {E1.container_end} name eth0", "link set eth0 up")
    assert full.observe() == ALL
    assert E1.container_end not in full.links()
    full.apply(Plan(change=((V1, replace(V1, hairpin=True)),)))
    assert not diff(full.observe(), ALL - {V1} | {replace(V1, hairpin=True)})
    full.apply(Plan(remove=(V1,)))
    eventually(lambda: links(sandbox) == {"lo"})


def test_namespace_died(full, host, monitor):
    monitor.after(host)
    sandbox = type(host)()
    host.ip(f"link set {E1.container_end} netns {sandbox.path}")
    sandbox.close()
    monitor.wait(E1.host_end)
    assert diff(full.observe(), ALL) == Plan(add=(V1,))
    full.apply(Plan(remove=(V1,)))
    assert full.observe() == ALL - {V1}


def test_comes_back_under_the_same_name(full, host, namespace):
    for _ in range(5):
        sandbox = namespace()
        host.ip(f"link set {E1.container_end} netns {sandbox.path}")
        full.apply(Plan(remove=(V1,)))
        assert E1.host_end not in full.links()
        assert full.observe() == ALL - {V1}
        full.apply(Plan(add=(V1,)))
        assert full.observe() == ALL
        assert E1.container_end in full.links()


def test_many_go_at_once(full, host):
    many = [next(plan_endpoint(endpoint(N1, i), N1)) for i in range(10, 10 + 2 * BATCH)]
    full.apply(Plan(add=tuple(many)))
    assert full.observe() == ALL | set(many)
    full.apply(Plan(remove=tuple(many)))
    assert full.observe() == ALL
    full.apply(diff(ALL, ()))  # the bridge waits for its veths
    assert N1.bridge not in links(host)
    eventually(lambda: links(host) == {"lo"})


def test_closing_finishes_removals(host):
    with closing(Links()) as netlink:
        netlink.apply(diff((), ALL))
        netlink.apply(Plan(remove=(V3, V2, V1)))
    assert links(host) == {"lo", N1.bridge, N2.bridge}


def test_failures_name_the_thing_and_the_reason(netlink):
    bad = replace(BRIDGE, mtu=70000)
    said = refusals(netlink, Plan(add=(bad, ADDRESS)))
    assert said == [f"cannot set up bridge {bad.name}: mtu greater than device maximum"]
    assert ADDRESS in netlink.observe()
    assert refusals(netlink, Plan(add=(V3,))) == [f"link {N2.bridge} is missing"]


def test_reading_while_writing(full):
    """A pass looks at the host while a call changes it."""
    done, failures = threading.Event(), []

    def look():
        while not done.is_set():
            try:
                assert full.observe() >= ALL - {V1}
                facts_of(full)
                full.links()
            except Exception as error:  # noqa: BLE001
                failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        full.apply(Plan(remove=(V1,)))
        full.apply(Plan(add=(V1,)))
    done.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert failures == []
