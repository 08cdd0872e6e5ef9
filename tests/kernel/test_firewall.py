"""The nft table in a real kernel: what is applied is observed, and drift is seen."""

import dataclasses
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from driver import firewall, rules
from driver.errors import Conflict, HostError
from driver.firewall import PATH, Nft
from driver.things import Element, Plan, Table, diff
from tests.kernel.sample import (
    ONE,
    TABLE,
    WANTED,
)

pytestmark = pytest.mark.kernel


def only(caught, kind):
    [error] = caught.value.exceptions
    assert type(error) is kind
    assert "\n" not in str(error)
    return str(error)


def handle(host):
    return host.run("nft", "-a", "list", "tables")


def test_nothing_at_first(nft):
    assert nft.observe() == frozenset()


def test_the_golden_table_loads(nft):
    nft.apply(Plan(add=(TABLE,)))
    assert nft.observe() == {TABLE}


def test_what_is_planned_is_observed_exactly(full):
    assert full.observe() == WANTED
    assert ONE in WANTED


def test_a_second_apply_changes_nothing(full, host):
    before = handle(host)
    full.apply(diff((), WANTED))
    full.apply(Plan(add=(ONE,)))
    assert full.observe() == WANTED
    assert handle(host) == before


def test_elements_come_and_go_alone(full):
    for element in WANTED - {TABLE}:
        full.apply(Plan(remove=(element,)))
        assert full.observe() == WANTED - {element}
        full.apply(Plan(remove=(element,)))
        full.apply(Plan(add=(element,)))
        assert full.observe() == WANTED


def test_all_of_it_goes(full, host):
    full.apply(diff(WANTED, ()))
    assert full.observe() == frozenset()
    assert host.run("nft", "list", "ruleset") == ""
    full.apply(diff(WANTED, ()))


def test_an_element_changes(full):
    for old in WANTED - {TABLE}:
        data = old.data and "10.2.0.3 . 7"
        new = dataclasses.replace(old, data=data, owner="9" * 64)
        full.apply(Plan(change=((old, new),)))
        assert full.observe() == WANTED - {old} | {new}
        full.apply(Plan(change=((old, new),)))
        full.apply(Plan(change=((new, old),)))
        assert full.observe() == WANTED


def test_many_adjacent_blocks_stay_apart(nft):
    blocks = {
        Element("lease4", f"10.2.{i}.{j}/26", owner=f"{i}") for i in range(9) for j in (0, 64)
    }
    single = {Element("over4", "10.9.0.1"), Element("over4", "10.9.0.2")}
    nft.apply(diff((), {TABLE, *blocks, *single}))
    assert nft.observe() == {TABLE, *blocks, *single}


def test_a_doubled_element_is_a_conflict_and_nothing_else_happens(full):
    thief = dataclasses.replace(ONE, data="10.2.0.3 . 80", owner="3" * 64)
    innocent = Element("pub4_any", "tcp . 1", "10.2.0.3 . 1", "3" * 64)
    gone = next(t for t in WANTED if isinstance(t, Element) and t.set == "pair")
    with pytest.raises(ExceptionGroup) as caught:
        full.apply(Plan(add=(innocent, thief), remove=(gone,)))
    message = only(caught, Conflict)
    assert "tcp . 8080" in message
    assert "111111111111" in message
    assert full.observe() == WANTED


def test_the_same_data_for_another_owner_is_a_conflict(full):
    with pytest.raises(ExceptionGroup) as caught:
        full.apply(Plan(add=(dataclasses.replace(ONE, owner="3" * 64),)))
    only(caught, Conflict)


def test_what_is_partly_so_is_completed(full):
    new = Element("pub4_any", "tcp . 1", "10.2.0.3 . 1", "3" * 64)
    absent = Element("pub4_any", "tcp . 2", "10.2.0.3 . 2", "3" * 64)
    full.apply(Plan(add=(ONE, new), remove=(absent,)))
    assert full.observe() == WANTED | {new}


def test_nonsense_is_refused_in_one_line(full):
    with pytest.raises(ExceptionGroup) as caught:
        full.apply(Plan(add=(Element("pub4_any", "tcp . http . 3", "10.2.0.3 . 1"),)))
    assert "nftables refused" in only(caught, HostError)
    assert full.observe() == WANTED


def test_without_the_table_removal_succeeds_and_adding_does_not(full, host):
    host.run("nft", "flush", "ruleset")
    full.apply(Plan(remove=(ONE,)))
    with pytest.raises(ExceptionGroup) as caught:
        full.apply(Plan(add=(ONE,)))
    assert "gone" in only(caught, HostError)


@pytest.mark.parametrize(
    "command",
    [
        "insert rule inet docker_flannel forward accept",
        "add rule inet docker_flannel forward accept",
        "flush chain inet docker_flannel publish",
        "flush table inet docker_flannel",
        "add chain inet docker_flannel foreign",
        "add set inet docker_flannel foreign { type ipv4_addr; }",
        "add table inet docker_flannel { flags dormant; }",
        "add chain inet docker_flannel forward { policy drop; }",
        "delete table inet docker_flannel",
        "flush ruleset",
    ],
)
def test_a_changed_skeleton_is_replaced_with_everything(full, host, command):
    host.run("nft", command)
    assert full.observe() == frozenset()
    full.apply(diff(full.observe(), WANTED))
    assert full.observe() == WANTED


def test_changes_of_others_are_noticed_and_own_ones_are_not(full, host):
    full.apply(Plan(remove=(ONE,)))
    assert not full.disturbed()
    for command in ("add table ip elsewhere", "flush ruleset"):
        host.run("nft", command)
        assert full.disturbed()
        full.observe()
        assert not full.disturbed()


def test_changed_elements_are_seen_one_by_one(full, host):
    for command in (
        "delete element inet docker_flannel pub4_any { tcp . 8080 }",
        "add element inet docker_flannel internal { eth0 }",
        "add element inet docker_flannel over4 { 10.9.0.1-10.9.0.6 }",
        "add element inet docker_flannel pub4_any { udp . 1 : 10.9.0.1 . 2 }",
    ):
        host.run("nft", command)
    plan = diff(full.observe(), WANTED)
    assert plan.add == (ONE,)
    assert {(t.set, t.at) for t in plan.remove} == {
        ("internal", '"eth0"'),
        ("over4", "10.9.0.1-10.9.0.6"),
        ("pub4_any", "udp . 1"),
    }
    full.apply(plan)
    assert full.observe() == WANTED


@pytest.mark.usefixtures("full")
def test_a_table_of_an_earlier_process_is_replaced(host):
    host.run("nft", "add element inet docker_flannel internal { eth0 }")
    with closing(Nft()) as later:
        assert later.observe() == frozenset()
        later.apply(diff(later.observe(), WANTED))
        assert later.observe() == WANTED


def test_another_text_keeps_the_elements(full):
    text = Table(rules.TABLE_TEXT + "chain more { }\n")
    full.apply(Plan(change=((TABLE, text),), remove=(ONE,)))
    assert full.observe() == WANTED - {TABLE, ONE} | {text}


def test_counters_and_other_tables_are_no_drift(full, host):
    host.run("nft", "add table inet foreign")
    host.run("nft", "reset", "counters")
    host.ip("link add fl-x up type veth peer name y", "addr add 10.0.0.1/24 dev fl-x")
    assert full.observe() == WANTED


def test_observing_bears_others_at_work(full):
    stray = Element("internal", '"eth9"')
    replaced = f"add table {PATH}; delete table {PATH}; table {PATH} {{ {rules.TABLE_TEXT} }}"
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for text in (
                f"add element {PATH} internal {{ eth9 }}",
                "add table inet foreign; add chain inet foreign x",
                f"delete element {PATH} internal {{ eth9 }}",
                "delete table inet foreign",
            ):
                subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        for _ in range(10):
            subprocess.run(["nft", "-f", "-"], input=replaced, text=True, check=True)

    thread = threading.Thread(target=work)
    thread.start()
    seen = {full.observe() for _ in range(100)}
    stop.set()
    while thread.is_alive():
        assert TABLE in full.observe()
    thread.join()
    assert seen <= {frozenset(WANTED), frozenset(WANTED | {stray})}
    assert full.observe() == {TABLE}


@pytest.mark.parametrize("data", ["ipv4_addr . inet_service", ["ipv4_addr", "inet_service"]])
def test_a_map_is_read_as_old_and_new_libraries_list_it(data):
    key = {"elem": {"val": {"concat": [6, 8080]}, "comment": "1" * 64}}
    listed = {
        "name": "pub4_any",
        "type": ["inet_proto", "inet_service"],
        "map": data,
        "elem": [[key, {"concat": ["10.2.0.2", 80]}]],
    }
    assert list(firewall._elements(listed)) == [ONE]


def test_names_of_protocols_need_no_file():
    """In a mount namespace whose /etc/protocols is empty, as in small container images."""
    script = (
        "import subprocess, sys; sys.path[:0] = sys.argv[1:]\n"
        "subprocess.run(['mount', '--bind', '/dev/null', '/etc/protocols'], check=True)\n"
        "import test_firewall as t\n"
        "nft = t.Nft(); nft.apply(t.diff((), t.WANTED)); assert nft.observe() == t.WANTED"
    )
    here = Path(__file__).parent
    paths = [str(here.parents[1]), str(here)]
    subprocess.run(["unshare", "-m", sys.executable, "-c", script, *paths], check=True)


def test_any_thread_may_call(full):
    def work():
        full.apply(Plan(remove=(ONE,)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert full.observe() == WANTED - {ONE}
