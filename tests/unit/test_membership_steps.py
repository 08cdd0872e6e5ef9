"""What is decided about this host's lease, as tables: no etcd, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from driver.flannel import lease_value
from driver.lease_steps import (
    CHOICES,
    SOON_S,
    Delete,
    Held,
    Host,
    Memory,
    Sight,
    Step,
    Terms,
    Write,
    step,
    written,
)
from driver.model import Overlay
from driver.peers import Own
from driver.registry import Entry

N = IPv4Network
IP = IPv4Address
OVERLAY = Overlay(N("10.5.0.0/16"), 24, IP("10.5.1.0"), IP("10.5.255.0"), "vxlan")
OTHER = Overlay(N("10.6.0.0/16"), 24, IP("10.6.1.0"), IP("10.6.255.0"), "vxlan")
MAC = "02:00:00:00:00:01"
FOREIGN = "02:00:00:00:00:99"
HOST = Host(Own(IP("192.0.2.11"), MAC))
BUSY = replace(HOST, in_use=True)
SUBNET = N("10.5.9.0/24")
NOW = 1000.0
TERMS = Terms(100, 10.0)


def key(subnet: str | N) -> str:
    return f"/f/subnets/{str(subnet).replace('/', '-')}"


def value(ip: str = "192.0.2.11", mac: str = MAC) -> str:
    return lease_value(IP(ip), "vxlan", 1, mac)


OURS = value()
THEIRS = value("192.0.2.30", FOREIGN)
TWIN = value(mac=FOREIGN)


def sight(config: Overlay | None = OVERLAY, **keys: tuple[str, int]) -> Sight:
    """Show keys named by the third number of their subnets: `_9=(value, revision)`."""
    named = {key(f"10.5.{name[1:]}.0/24"): found for name, found in keys.items()}
    entries = {k: Entry(k, text.encode(), revision) for k, (text, revision) in named.items()}
    return Sight("/f", config, "" if config else "no config", entries)


def first(choices: Sequence[N]) -> N:
    return choices[0]


def decide(memory: Memory, seen: Sight, host: Host = HOST, now: float = NOW) -> Step:
    return step(memory, seen, host, now, first)


HELD = Memory(OVERLAY, SUBNET, Held(SUBNET, 5, NOW + 50, OURS))
KNOWN = Memory(OVERLAY, SUBNET)
FRESH = Memory()


# --- acquiring ---


@pytest.mark.parametrize(
    ("memory", "seen", "expected"),
    [
        # nothing there: the first free one, the very first is left out
        (FRESH, sight(), Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        # others are there
        (FRESH, sight(_1=(THEIRS, 2)), Write(key("10.5.2.0/24"), N("10.5.2.0/24"), 0, OURS)),
        # what cannot be read takes its subnet all the same
        (FRESH, sight(_1=("{", 2)), Write(key("10.5.2.0/24"), N("10.5.2.0/24"), 0, OURS)),
        # our public IP: its lease, whatever the MAC and the backend
        (FRESH, sight(_7=(OURS, 4)), Write(key("10.5.7.0/24"), N("10.5.7.0/24"), 4, OURS)),
        (FRESH, sight(_7=(TWIN, 4)), Write(key("10.5.7.0/24"), N("10.5.7.0/24"), 4, OURS)),
        (FRESH, sight(_7=('{"PublicIP":"192.0.2.11"}', 4)),
         Write(key("10.5.7.0/24"), N("10.5.7.0/24"), 4, OURS)),
        # of two, the first; but rather the subnet we had
        (FRESH, sight(_7=(OURS, 4), _8=(OURS, 3)),
         Write(key("10.5.7.0/24"), N("10.5.7.0/24"), 4, OURS)),
        (KNOWN, sight(_7=(OURS, 4), _9=(OURS, 3)), Write(key(SUBNET), SUBNET, 3, OURS)),
        # the subnet we had, if it is free
        (KNOWN, sight(_7=(THEIRS, 4)), Write(key(SUBNET), SUBNET, 0, OURS)),
        # else another, as long as nothing uses it
        (KNOWN, sight(_9=(THEIRS, 4)), Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        (KNOWN, sight(_9=("{", 4)), Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)),
        # a lease of ours that the config does not allow goes first
        (FRESH, sight(_0=(OURS, 4)), Delete(key("10.5.0.0/24"), 4)),
        # a config with another network
        (KNOWN, sight(OTHER, _9=(OURS, 4)), Delete(key(SUBNET), 4)),
        (KNOWN, sight(OTHER), Write(key("10.6.1.0/24"), N("10.6.1.0/24"), 0, OURS)),
    ],
)  # fmt: skip
def test_acquiring(memory: Memory, seen: Sight, expected: Write | Delete) -> None:
    found = decide(memory, seen)
    assert (found.state, found.action, found.problems) == ("acquiring", expected, ())
    assert found.subnet in (None, SUBNET)
    assert (found.subnet == SUBNET) == (isinstance(expected, Write) and expected.subnet == SUBNET)


def test_one_of_a_hundred_is_chosen() -> None:
    offered: list[Sequence[N]] = []

    def last(choices: Sequence[N]) -> N:
        offered.append(choices)
        return choices[-1]

    found = step(FRESH, sight(), HOST, NOW, last)
    assert len(offered[0]) == CHOICES
    assert isinstance(found.action, Write)
    assert found.action.subnet == N("10.5.100.0/24")


def test_a_lease_with_ipv6_of_ours_is_replaced() -> None:
    dual = f"{key(SUBNET)}&fd00::-64"
    seen = Sight("/f", OVERLAY, "", {dual: Entry(dual, OURS.encode(), 4)})
    assert decide(KNOWN, seen).action == Delete(dual, 4)
    assert decide(KNOWN, seen, BUSY).action == Delete(dual, 4)


def test_a_stray_key_with_our_address_is_not_touched() -> None:
    stray = "/f/subnetsXYZ/10.5.7.0-24"
    seen = Sight("/f", OVERLAY, "", {stray: Entry(stray, OURS.encode(), 4)})
    assert decide(FRESH, seen).action == Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)


def test_no_free_subnet() -> None:
    small = replace(OVERLAY, subnet_max=IP("10.5.2.0"))
    found = decide(FRESH, sight(small, _1=(THEIRS, 2), _2=(THEIRS, 3)))
    assert (found.state, found.action) == ("acquiring", None)
    assert found.problems == (
        "no free subnet of /24 from 10.5.1.0 to 10.5.2.0: remove keys of hosts that are gone, or "
        "widen the network",
    )


# --- holding ---


def test_a_lease_is_held_until_it_is_due() -> None:
    found = decide(HELD, sight(_9=(OURS, 5)))
    assert found == Step(HELD, "held", SUBNET)
    found = decide(HELD, sight(_9=(OURS, 5)), now=NOW + 50)
    assert (found.state, found.subnet) == ("renewing", SUBNET)
    assert found.action == Write(key(SUBNET), SUBNET, 5, OURS)


@pytest.mark.parametrize(
    "own",
    [Own(IP("192.0.2.12"), MAC), Own(IP("192.0.2.11"), "02:00:00:00:00:02")],
)
def test_another_address_or_mac_of_our_own_is_written_at_once(own: Own) -> None:
    found = decide(HELD, sight(_9=(OURS, 5)), Host(own))
    text = value(str(own.public_ip), own.mac or "")
    assert found.action == Write(key(SUBNET), SUBNET, 5, text)


def test_another_backend_is_written_at_once() -> None:
    found = decide(HELD, sight(replace(OVERLAY, backend="host-gw"), _9=(OURS, 5)))
    text = lease_value(IP("192.0.2.11"), "host-gw", 1, None)
    assert found.action == Write(key(SUBNET), SUBNET, 5, text)


def test_a_deleted_lease_is_taken_again() -> None:
    found = decide(HELD, sight())
    assert found.action == Write(key(SUBNET), SUBNET, 0, OURS)
    assert (found.state, found.subnet) == ("acquiring", SUBNET)


def test_our_own_write_of_which_the_answer_was_lost_is_recognised() -> None:
    found = decide(HELD, sight(_9=(OURS, 6)))
    assert (found.state, found.action) == ("held", None)
    assert found.memory.held == Held(SUBNET, 6, NOW + 50, OURS)
    # also of one before our address changed
    found = decide(HELD, sight(_9=(OURS, 6)), Host(Own(IP("192.0.2.12"), MAC)))
    assert found.action == Write(key(SUBNET), SUBNET, 6, value("192.0.2.12"))
    late = replace(HELD, held=Held(SUBNET, 5, NOW + 5000, OURS))
    assert decide(late, sight(_9=(OURS, 6))).memory.held == Held(SUBNET, 6, NOW + SOON_S, OURS)


def test_a_second_lease_of_ours_goes() -> None:
    found = decide(HELD, sight(_7=(OURS, 9), _9=(OURS, 5)), BUSY)
    assert (found.state, found.subnet) == ("held", SUBNET)
    assert found.action == Delete(key("10.5.7.0/24"), 9)
    # but not one that may be another host's
    assert decide(HELD, sight(_7=(TWIN, 9), _9=(OURS, 5))).action is None


def test_a_value_that_somebody_spoilt_is_mended() -> None:
    for bad in ("{", "null", '{"PublicIP":null}'):
        found = decide(HELD, sight(_9=(bad, 6)))
        assert found.action == Write(key(SUBNET), SUBNET, 6, OURS)
    found = decide(HELD, sight(_9=('{"PublicIP":"192.0.2.11"}', 6)))
    assert found.action == Write(key(SUBNET), SUBNET, 6, OURS)


def test_a_lease_that_another_host_has_is_never_written() -> None:
    found = decide(HELD, sight(_9=(THEIRS, 6)))
    assert found.action == Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)
    found = decide(HELD, sight(_9=(THEIRS, 6)), BUSY)
    assert (found.state, found.action, found.subnet) == ("lost", None, None)
    assert "our subnet 10.5.9.0/24 belongs to 192.0.2.30, but networks use it" in found.problems[0]
    # and comes back when the other is gone
    again = decide(found.memory, sight(), BUSY)
    assert again.action == Write(key(SUBNET), SUBNET, 0, OURS)


def test_a_subnet_in_use_is_not_given_up_for_another_lease_of_ours() -> None:
    found = decide(KNOWN, sight(_7=(OURS, 3), _9=(THEIRS, 4)), BUSY)
    assert (found.state, found.action) == ("lost", None)


# --- two hosts with one public IP ---


def test_a_host_that_takes_our_lease_with_our_public_ip_is_put_right() -> None:
    found = decide(HELD, sight(_9=(TWIN, 6)))
    assert found.action == Write(key(SUBNET), SUBNET, 6, OURS)
    assert found.subnet == SUBNET


def test_another_host_with_our_public_ip_that_had_the_lease_first_is_yielded_to() -> None:
    found = decide(replace(HELD, elder=(FOREIGN, math.inf)), sight(_9=(TWIN, 6)))
    assert (found.state, found.action, found.subnet) == ("refused", None, None)
    assert FOREIGN in found.problems[0]
    assert "192.0.2.11" in found.problems[0]
    assert decide(found.memory, sight(_9=(TWIN, 7))).state == "refused"
    # it goes
    again = decide(found.memory, sight())
    assert again.action == Write(key(SUBNET), SUBNET, 0, OURS)
    # or gets another public IP, as it was told, and leaves
    moved = decide(found.memory, sight(_9=(THEIRS, 8)))
    assert moved.action == Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)
    # or we get one
    other = decide(found.memory, sight(_9=(TWIN, 7)), Host(Own(IP("192.0.2.12"), MAC)))
    assert isinstance(other.action, Write)
    assert other.action.revision == 0


# --- the config ---


def test_without_a_config_there_is_nothing_to_do() -> None:
    assert decide(FRESH, sight(None)) == Step(FRESH, "waiting", problems=("no config",))
    found = decide(replace(FRESH, subnet=SUBNET), sight(None))
    assert (found.state, found.subnet) == ("waiting", SUBNET)


def test_a_config_that_goes_leaves_everything_as_it_was() -> None:
    found = decide(HELD, sight(None, _9=(OURS, 5)))
    assert (found.state, found.memory.overlay) == ("held", OVERLAY)
    assert found.problems == ("no config: the config stays as it was",)
    assert decide(HELD, sight(None)).action == Write(key(SUBNET), SUBNET, 0, OURS)


def test_a_config_that_does_not_allow_our_subnet_waits_until_nothing_uses_it() -> None:
    found = decide(HELD, sight(OTHER, _9=(OURS, 5)), BUSY)
    assert (found.state, found.memory.overlay, found.action) == ("held", OVERLAY, None)
    assert "does not allow our subnet 10.5.9.0/24 any more, but networks" in found.problems[0]
    found = decide(HELD, sight(OTHER, _9=(OURS, 5)))
    assert (found.memory.overlay, found.action) == (OTHER, Delete(key(SUBNET), 5))
    found = decide(found.memory, sight(OTHER))
    assert found.action == Write(key("10.6.1.0/24"), N("10.6.1.0/24"), 0, OURS)


def test_a_subnet_in_use_of_which_no_config_is_known_is_lost() -> None:
    found = decide(Memory(subnet=SUBNET), sight(OTHER), BUSY)
    assert (found.state, found.action) == ("lost", None)
    assert "is not one that the config of 10.6.0.0/16 allows" in found.problems[0]


def test_another_vni_counts_at_once() -> None:
    found = decide(HELD, sight(replace(OVERLAY, vni=2), _9=(OURS, 5)), BUSY)
    assert found.memory.overlay == replace(OVERLAY, vni=2)
    assert found.action == Write(key(SUBNET), SUBNET, 5, OURS.replace('"VNI":1', '"VNI":2'))


# --- after a write ---


def test_what_is_remembered_of_a_write() -> None:
    write = Write(key(SUBNET), SUBNET, 0, OURS)
    memory = written(FRESH, write, 8, NOW, TERMS)
    assert memory == Memory(None, SUBNET, Held(SUBNET, 8, NOW + 90, OURS))
    moved = written(Memory(OVERLAY, N("10.5.7.0/24"), rival=FOREIGN), write, 8, NOW, TERMS)
    assert moved == Memory(OVERLAY, SUBNET, Held(SUBNET, 8, NOW + 90, OURS), moved=True)
    assert decide(moved, sight(_9=(OURS, 8))).state == "moved"
    renewed = written(moved, write, 9, NOW + 90, TERMS)
    assert decide(renewed, sight(_9=(OURS, 9)), now=NOW + 91).state == "held"
