"""How a host gets its lease, and what the config does to it: tables without etcd or clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from driver.flannel.allocation import CHOICES
from driver.flannel.etcd.registry import Entry
from driver.flannel.lease_policy import step, written
from driver.flannel.lease_types import (
    Delete,
    EtcdView,
    HeldLease,
    PolicyState,
    Step,
    ThisHost,
    Write,
)
from driver.model.facts import LocalAddresses
from tests.unit.lease_sample import (
    BUSY,
    COPY,
    FRESH,
    HELD,
    HOST,
    HOST_99,
    IP,
    KNOWN,
    NOW,
    OTHER,
    OURS,
    OVERLAY,
    SUBNET,
    TERMS,
    THEIRS,
    TWIN,
    N,
    decide,
    key,
    view,
)

# --- acquiring ---


@pytest.mark.parametrize(
    ("state", "seen", "expected"),
    [
        # nothing there: the first free one, the very first is left out
        (FRESH, view(), Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        # others are there
        (FRESH, view(_1=(THEIRS, 2)), Write(key("10.5.2.0/24"), N("10.5.2.0/24"), 0, OURS)),
        # what cannot be read takes its subnet all the same
        (FRESH, view(_1=("{", 2)), Write(key("10.5.2.0/24"), N("10.5.2.0/24"), 0, OURS)),
        # our public IP: its lease, whatever the MAC and the backend
        (FRESH, view(_7=(OURS, 4)), Write(key("10.5.7.0/24"), N("10.5.7.0/24"), 4, OURS)),
        (FRESH, view(_7=(TWIN, 4)), Write(key("10.5.7.0/24"), N("10.5.7.0/24"), 4, OURS)),
        (FRESH, view(_7=('{"PublicIP":"192.0.2.11"}', 4)),
         Write(key("10.5.7.0/24"), N("10.5.7.0/24"), 4, OURS)),
        # our MAC and the subnet we had, by the public IP of before
        (KNOWN, view(_7=(OURS, 4), _9=(COPY, 3)), Write(key(SUBNET), SUBNET, 3, OURS)),
        # but not by our MAC alone
        (KNOWN, view(_7=(COPY, 4)), Write(key(SUBNET), SUBNET, 0, OURS)),
        (FRESH, view(_9=(COPY, 3)), Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        # of two, the first; but rather the subnet we had
        (FRESH, view(_7=(OURS, 4), _8=(OURS, 3)),
         Write(key("10.5.7.0/24"), N("10.5.7.0/24"), 4, OURS)),
        (KNOWN, view(_7=(OURS, 4), _9=(OURS, 3)), Write(key(SUBNET), SUBNET, 3, OURS)),
        # the subnet we had, if it is free
        (KNOWN, view(_7=(THEIRS, 4)), Write(key(SUBNET), SUBNET, 0, OURS)),
        # else another, as long as nothing uses it
        (KNOWN, view(_9=(THEIRS, 4)), Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        (KNOWN, view(_9=("{", 4)), Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        # a lease of ours that the config does not allow goes first
        (FRESH, view(_0=(OURS, 4)), Delete(key("10.5.0.0/24"), 4)),
        # a config with another network
        (KNOWN, view(OTHER, _9=(OURS, 4)), Delete(key(SUBNET), 4)),
        (KNOWN, view(OTHER), Write(key("10.6.1.0/24"), N("10.6.1.0/24"), 0, OURS)),
    ],
)  # fmt: skip
def test_acquiring(state: PolicyState, seen: EtcdView, expected: Write | Delete) -> None:
    found = decide(state, seen)
    assert (found.phase, found.action, found.problems) == ("acquiring", expected, ())
    assert found.subnet in (None, SUBNET)
    assert (found.subnet == SUBNET) == (isinstance(expected, Write) and expected.subnet == SUBNET)


def on_lan(*lans: str, in_use: str = "") -> ThisHost:
    return replace(HOST, local=LocalAddresses(lans=tuple(map(N, lans))), in_use=in_use)


@pytest.mark.parametrize(
    ("state", "seen", "lan", "expected"),
    [
        # a LAN of the host is nobody's to give
        (FRESH, view(), "10.5.1.0/24", Write(key("10.5.2.0/24"), N("10.5.2.0/24"), 0, OURS)),
        (FRESH, view(), "10.5.0.0/22", Write(key("10.5.4.0/24"), N("10.5.4.0/24"), 0, OURS)),
        (KNOWN, view(), "10.5.9.128/25", Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        # a lease of ours there goes first, also one that is held
        (KNOWN, view(_9=(OURS, 4)), "10.5.9.0/24", Delete(key(SUBNET), 4)),
        (HELD, view(_9=(OURS, 5)), "10.5.9.0/24", Delete(key(SUBNET), 5)),
        # one that has the whole Network in it was chosen so
        (FRESH, view(), "10.0.0.0/8", Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        (FRESH, view(), "10.5.0.0/16", Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
    ],
)
def test_no_subnet_is_taken_from_a_lan_of_the_host(
    state: PolicyState, seen: EtcdView, lan: str, expected: Write | Delete
) -> None:
    assert decide(state, seen, on_lan(lan)).action == expected


def test_a_subnet_in_use_stays_when_the_host_gets_such_a_lan() -> None:
    found = decide(HELD, view(_9=(OURS, 5)), on_lan("10.5.9.0/24", in_use="network 0123456789ab"))
    assert (found.phase, found.subnet, found.action) == ("held", SUBNET, None)


def test_one_of_a_hundred_is_chosen() -> None:
    offered: list[Sequence[N]] = []

    def last(choices: Sequence[N]) -> N:
        offered.append(choices)
        return choices[-1]

    found = step(FRESH, view(), HOST, NOW, last)
    assert len(offered[0]) == CHOICES
    assert isinstance(found.action, Write)
    assert found.action.subnet == N("10.5.100.0/24")


def test_a_lease_with_ipv6_of_ours_is_replaced() -> None:
    dual = f"{key(SUBNET)}&fd00::-64"
    seen = EtcdView("/f", OVERLAY, "", {dual: Entry(dual, OURS.encode(), 4)})
    assert decide(KNOWN, seen).action == Delete(dual, 4)
    assert decide(KNOWN, seen, BUSY).action == Delete(dual, 4)


def test_a_stray_key_with_our_address_is_not_touched() -> None:
    stray = "/f/subnetsXYZ/10.5.7.0-24"
    seen = EtcdView("/f", OVERLAY, "", {stray: Entry(stray, OURS.encode(), 4)})
    assert decide(FRESH, seen).action == Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)


def test_no_free_subnet() -> None:
    small = replace(OVERLAY, subnet_max=IP("10.5.2.0"))
    found = decide(FRESH, view(small, _1=(THEIRS, 2), _2=(THEIRS, 3)))
    assert (found.phase, found.action) == ("acquiring", None)
    assert found.problems == (
        "no free subnet of /24 from 10.5.1.0 to 10.5.2.0: remove keys of hosts that are gone, or "
        "widen the network",
    )


def test_no_subnet_is_free_but_on_a_lan_of_the_host() -> None:
    found = decide(FRESH, view(), on_lan("10.5.0.0/17", "10.5.128.0/17"))
    assert (found.phase, found.action) == ("acquiring", None)
    assert (
        "from 10.5.1.0 to 10.5.255.0 outside this host's own 10.5.0.0/17, 10.5.128.0/17: "
        in (found.problems[0])
    )


# --- the config ---


def test_without_a_config_there_is_nothing_to_do() -> None:
    assert decide(FRESH, view(None)) == Step(FRESH, "waiting", problems=("no config",))
    found = decide(replace(FRESH, subnet=SUBNET), view(None))
    assert (found.phase, found.subnet) == ("waiting", SUBNET)


def test_a_config_that_goes_leaves_everything_as_it_was() -> None:
    found = decide(HELD, view(None, _9=(OURS, 5)))
    assert (found.phase, found.state.overlay) == ("held", OVERLAY)
    assert found.problems == ("no config: the config stays as it was",)
    assert decide(HELD, view(None)).action == Write(key(SUBNET), SUBNET, 0, OURS)


def test_a_config_that_does_not_allow_our_subnet_waits_until_nothing_uses_it() -> None:
    found = decide(HELD, view(OTHER, _9=(OURS, 5)), BUSY)
    assert (found.phase, found.state.overlay, found.action) == ("held", OVERLAY, None)
    assert (
        "does not allow our subnet 10.5.9.0/24, but these use it: network 0123" in found.problems[0]
    )
    found = decide(HELD, view(OTHER, _9=(OURS, 5)))
    assert (found.state.overlay, found.action) == (OTHER, Delete(key(SUBNET), 5))
    found = decide(found.state, view(OTHER))
    assert found.action == Write(key("10.6.1.0/24"), N("10.6.1.0/24"), 0, OURS)


def test_a_subnet_in_use_of_which_no_config_is_known_is_lost() -> None:
    found = decide(PolicyState(subnet=SUBNET), view(OTHER), BUSY)
    assert (found.phase, found.action) == ("lost", None)
    assert "is not one that the config of 10.6.0.0/16 allows" in found.problems[0]


def test_another_vni_counts_at_once() -> None:
    found = decide(HELD, view(replace(OVERLAY, vni=2), _9=(OURS, 5)), BUSY)
    assert found.state.overlay == replace(OVERLAY, vni=2)
    assert found.action == Write(key(SUBNET), SUBNET, 5, OURS.replace('"VNI":1', '"VNI":2'))


# --- after a write ---


def test_what_is_remembered_of_a_write() -> None:
    write = Write(key(SUBNET), SUBNET, 0, OURS)
    state = written(FRESH, write, 8, NOW, TERMS)
    assert state == PolicyState(None, SUBNET, HeldLease(SUBNET, 8, NOW + 90, OURS))
    moved = written(PolicyState(OVERLAY, N("10.5.7.0/24"), rival=HOST_99), write, 8, NOW, TERMS)
    assert moved == PolicyState(OVERLAY, SUBNET, HeldLease(SUBNET, 8, NOW + 90, OURS), moved=True)
    assert decide(moved, view(_9=(OURS, 8))).phase == "moved"
    renewed = written(moved, write, 9, NOW + 90, TERMS)
    assert decide(renewed, view(_9=(OURS, 9)), now=NOW + 91).phase == "held"
