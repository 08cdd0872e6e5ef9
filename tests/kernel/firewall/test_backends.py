"""Each backend of the firewall in a real kernel: what is applied is observed."""

import dataclasses
import threading
import time
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver import wiring
from driver.errors import Conflict, HostError
from driver.host.firewall.nft import NftFirewall
from driver.model.firewall import (
    BridgePair,
    FirewallEntry,
    Masquerade,
    OverlayPrefix,
    PortMap,
    Ruleset,
    Uplink,
)
from driver.model.objects import Plan, diff
from driver.model.records import ANY
from tests.kernel.firewalls import FIREWALLS, flush, listing
from tests.kernel.sample import ONE, TABLE, WANTED
from tests.unit.contract import check_adapter

pytestmark = pytest.mark.kernel


def only(caught, kind):
    [error] = caught.value.exceptions
    assert type(error) is kind
    assert "\n" not in str(error)
    return str(error)


def wait(condition, limit_s=10.0):
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_the_contract(firewall):
    objects = [t for t in diff((), WANTED).add if isinstance(t, Ruleset | FirewallEntry)]
    check_adapter(
        firewall, objects, (ONE, dataclasses.replace(ONE, target=IPv4Address("10.2.0.3")))
    )


def test_nothing_at_first(firewall):
    assert firewall.observe() == frozenset()


def test_the_golden_table_loads(firewall):
    firewall.apply(Plan(add=(TABLE,)))
    assert firewall.observe() == {TABLE}


def test_what_is_planned_is_observed_exactly(loaded):
    assert loaded.observe() == WANTED
    assert ONE in WANTED


def test_a_second_apply_changes_nothing(loaded, host):
    before = listing(host)
    loaded.apply(diff((), WANTED))
    loaded.apply(Plan(add=(ONE,)))
    assert loaded.observe() == WANTED
    assert listing(host) == before


def test_elements_come_and_go_alone(loaded):
    for element in WANTED - {TABLE}:
        loaded.apply(Plan(remove=(element,)))
        assert loaded.observe() == WANTED - {element}
        loaded.apply(Plan(remove=(element,)))
        loaded.apply(Plan(add=(element,)))
        assert loaded.observe() == WANTED


def test_all_of_it_goes(loaded, host):
    loaded.apply(diff(WANTED, ()))
    assert loaded.observe() == frozenset()
    assert "docker_flannel" not in listing(host)
    assert "DKFLANNEL" not in listing(host)
    loaded.apply(diff(WANTED, ()))


def test_an_element_changes(loaded):
    for old in WANTED - {TABLE}:
        if not hasattr(old, "owner"):
            continue
        new = dataclasses.replace(old, owner="9" * 64)
        if isinstance(new, PortMap):
            new = dataclasses.replace(new, target=IPv4Address("10.2.0.3"), target_port=7)
        loaded.apply(Plan(change=((old, new),)))
        assert loaded.observe() == WANTED - {old} | {new}
        loaded.apply(Plan(change=((old, new),)))
        loaded.apply(Plan(change=((new, old),)))
        assert loaded.observe() == WANTED


def test_many_adjacent_blocks_stay_apart(firewall):
    blocks = {
        Masquerade(IPv4Network(f"10.2.{i}.{j}/26"), owner=f"{i}") for i in range(9) for j in (0, 64)
    }
    single = {OverlayPrefix(IPv4Network("10.9.0.1")), OverlayPrefix(IPv4Network("10.9.0.2"))}
    firewall.apply(diff((), {TABLE, *blocks, *single}))
    assert firewall.observe() == {TABLE, *blocks, *single}


def test_a_doubled_element_is_a_conflict_and_nothing_else_happens(loaded):
    thief = dataclasses.replace(ONE, target=IPv4Address("10.2.0.3"), owner="3" * 64)
    innocent = PortMap("tcp", ANY, 1, IPv4Address("10.2.0.3"), 1, "3" * 64)
    gone = next(t for t in WANTED if isinstance(t, BridgePair))
    with pytest.raises(ExceptionGroup) as caught:
        loaded.apply(Plan(add=(innocent, thief), remove=(gone,)))
    message = only(caught, Conflict)
    assert "0.0.0.0:8080/tcp already leads to 10.2.0.2:80" in message
    assert "111111111111" in message
    assert loaded.observe() == WANTED


def test_the_same_data_for_another_owner_is_a_conflict(loaded):
    with pytest.raises(ExceptionGroup) as caught:
        loaded.apply(Plan(add=(dataclasses.replace(ONE, owner="3" * 64),)))
    only(caught, Conflict)


def test_what_is_partly_so_is_completed(loaded):
    new = PortMap("tcp", ANY, 1, IPv4Address("10.2.0.3"), 1, "3" * 64)
    absent = PortMap("tcp", ANY, 2, IPv4Address("10.2.0.3"), 2, "3" * 64)
    loaded.apply(Plan(add=(ONE, new), remove=(absent,)))
    assert loaded.observe() == WANTED | {new}


def test_nonsense_is_refused_in_one_line(loaded):
    with pytest.raises(ExceptionGroup) as caught:
        loaded.apply(Plan(add=(Uplink("no interface has such a name"),)))
    only(caught, HostError)
    assert loaded.observe() == WANTED


def test_without_the_table_removal_succeeds_and_adding_does_not(loaded, host):
    flush(host)
    loaded.apply(Plan(remove=(ONE,)))
    with pytest.raises(ExceptionGroup) as caught:
        loaded.apply(Plan(add=(ONE,)))
    assert "somebody" in only(caught, HostError)


def test_changes_of_others_are_noticed_and_own_ones_are_not(loaded, host):
    loaded.apply(Plan(remove=(ONE,)))
    assert not loaded.disturbed()
    loaded.apply(Plan(add=(ONE,)))
    assert not loaded.disturbed()
    flush(host)
    wait(loaded.disturbed)
    loaded.observe()
    assert not loaded.disturbed()


def test_what_others_do_just_before_a_change_of_ours_is_noticed(loaded, host):
    assert not loaded.disturbed()
    host.run("nft", "add", "table", "inet", "foreign")
    loaded.apply(Plan(remove=(ONE,)))
    assert loaded.disturbed()
    loaded.observe()
    loaded.apply(Plan(add=(ONE,)))
    assert not loaded.disturbed()


def test_constant_rules_that_are_replaced_keep_the_entries(loaded, host):
    if loaded.name == "nft":
        host.run("nft", "add chain inet docker_flannel more")
    else:
        host.run(loaded.name, "-t", "nat", "-N", "DKFLANNEL-MORE")
    changed = Ruleset(intact=False)
    assert loaded.observe() == WANTED - {TABLE} | {changed}
    loaded.apply(Plan(change=((changed, TABLE),), remove=(ONE,)))
    assert loaded.observe() == WANTED - {ONE}


def test_counters_and_other_tables_are_no_drift(loaded, host):
    host.run("nft", "add table inet foreign")
    host.run("nft", "reset", "counters")
    host.ip("link add fl-x up type veth peer name y", "addr add 10.0.0.1/24 dev fl-x")
    assert loaded.observe() == WANTED


def test_any_thread_may_call(loaded):
    def work():
        loaded.apply(Plan(remove=(ONE,)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert loaded.observe() == WANTED - {ONE}


def test_what_others_do_is_noticed_once_even_without_networks(firewall, host):
    firewall.observe()
    assert not firewall.disturbed()
    host.run("nft", "add", "table", "inet", "foreign")
    assert firewall.disturbed()
    firewall.observe()
    assert not firewall.disturbed()


@pytest.mark.usefixtures("host")
def test_what_other_backends_left_goes_and_what_is_in_use_stays(loaded, caplog):
    others = [make for name, make in FIREWALLS.items() if name != loaded.name]
    for make in others:
        if make is NftFirewall:
            continue  # libnftables bears one at a time; an end-to-end test shows it
        with closing(make()) as other:
            other.apply(diff((), WANTED))
            wiring._clear_others(loaded.name)
            assert other.observe() == frozenset()
            assert loaded.observe() == WANTED
    assert caplog.text == ""
