"""What happens to a lease we hold: it is renewed, repaired, lost, or yielded to another host."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from driver.flannel.lease_policy import SOON_S
from driver.flannel.lease_types import Delete, HeldLease, Step, ThisHost, Write
from driver.flannel.records import lease_value
from tests.unit.lease_sample import (
    BUSY,
    COPY,
    FOREIGN,
    HELD,
    HOST_99,
    IP,
    KNOWN,
    MAC,
    NOW,
    OURS,
    OVERLAY,
    SUBNET,
    THEIRS,
    TWIN,
    N,
    decide,
    key,
    value,
    view,
)

# --- holding ---


def test_a_lease_is_held_until_it_is_due() -> None:
    found = decide(HELD, view(_9=(OURS, 5)))
    assert found == Step(HELD, "held", SUBNET)
    found = decide(HELD, view(_9=(OURS, 5)), now=NOW + 50)
    assert (found.phase, found.subnet) == ("renewing", SUBNET)
    assert found.action == Write(key(SUBNET), SUBNET, 5, OURS)


@pytest.mark.parametrize(
    "own",
    [ThisHost(IP("192.0.2.12"), MAC), ThisHost(IP("192.0.2.11"), "02:00:00:00:00:02")],
)
def test_another_address_or_mac_of_our_own_is_written_at_once(own: ThisHost) -> None:
    found = decide(HELD, view(_9=(OURS, 5)), own)
    text = value(str(own.public_ip), own.mac or "")
    assert found.action == Write(key(SUBNET), SUBNET, 5, text)


def test_another_backend_is_written_at_once() -> None:
    found = decide(HELD, view(replace(OVERLAY, backend="host-gw"), _9=(OURS, 5)))
    text = lease_value(IP("192.0.2.11"), "host-gw", 1, None)
    assert found.action == Write(key(SUBNET), SUBNET, 5, text)


def test_a_deleted_lease_is_taken_again() -> None:
    found = decide(HELD, view())
    assert found.action == Write(key(SUBNET), SUBNET, 0, OURS)
    assert (found.phase, found.subnet) == ("acquiring", SUBNET)


def test_our_own_write_of_which_the_answer_was_lost_is_recognised() -> None:
    found = decide(HELD, view(_9=(OURS, 6)))
    assert (found.phase, found.action) == ("held", None)
    assert found.state.held == HeldLease(SUBNET, 6, NOW + 50, OURS)
    # also of one before our address changed
    found = decide(HELD, view(_9=(OURS, 6)), ThisHost(IP("192.0.2.12"), MAC))
    assert found.action == Write(key(SUBNET), SUBNET, 6, value("192.0.2.12"))
    late = replace(HELD, held=HeldLease(SUBNET, 5, NOW + 5000, OURS))
    assert decide(late, view(_9=(OURS, 6))).state.held == HeldLease(SUBNET, 6, NOW + SOON_S, OURS)


def test_a_second_lease_of_ours_goes() -> None:
    found = decide(HELD, view(_7=(OURS, 9), _9=(OURS, 5)), BUSY)
    assert (found.phase, found.subnet) == ("held", SUBNET)
    assert found.action == Delete(key("10.5.7.0/24"), 9)
    # but not one that may be another host's
    assert decide(HELD, view(_7=(TWIN, 9), _9=(OURS, 5))).action is None


def test_a_value_that_somebody_spoilt_is_mended() -> None:
    for bad in ("{", "null", '{"PublicIP":null}'):
        found = decide(HELD, view(_9=(bad, 6)))
        assert found.action == Write(key(SUBNET), SUBNET, 6, OURS)
    found = decide(HELD, view(_9=('{"PublicIP":"192.0.2.11"}', 6)))
    assert found.action == Write(key(SUBNET), SUBNET, 6, OURS)


def test_a_lease_that_another_host_has_is_never_written() -> None:
    found = decide(HELD, view(_9=(THEIRS, 6)))
    assert found.action == Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)
    found = decide(HELD, view(_9=(THEIRS, 6)), BUSY)
    assert (found.phase, found.action, found.subnet) == ("lost", None, None)
    assert (
        "our subnet 10.5.9.0/24 belongs to 192.0.2.30, but these use it: network 0123456"
        in found.problems[0]
    )
    # and comes back when the other is gone
    again = decide(found.state, view(), BUSY)
    assert again.action == Write(key(SUBNET), SUBNET, 0, OURS)


def test_a_subnet_in_use_is_not_given_up_for_another_lease_of_ours() -> None:
    found = decide(KNOWN, view(_7=(OURS, 3), _9=(THEIRS, 4)), BUSY)
    assert (found.phase, found.action) == ("lost", None)


# --- two hosts with one public IP ---


def test_a_host_that_takes_our_lease_with_our_public_ip_is_put_right() -> None:
    found = decide(HELD, view(_9=(TWIN, 6)))
    assert found.action == Write(key(SUBNET), SUBNET, 6, OURS)
    assert found.subnet == SUBNET


def test_another_host_with_our_public_ip_that_had_the_lease_first_is_yielded_to() -> None:
    found = decide(replace(HELD, elder=(HOST_99, math.inf)), view(_9=(TWIN, 6)))
    assert (found.phase, found.action, found.subnet) == ("refused", None, None)
    assert FOREIGN in found.problems[0]
    assert "192.0.2.11" in found.problems[0]
    assert decide(found.state, view(_9=(TWIN, 7))).phase == "refused"
    # it goes
    again = decide(found.state, view())
    assert again.action == Write(key(SUBNET), SUBNET, 0, OURS)
    # or gets another public IP, as it was told, and leaves
    moved = decide(found.state, view(_9=(THEIRS, 8)))
    assert moved.action == Write(key("10.5.1.0/24"), N("10.5.1.0/24"), 0, OURS)
    # or we get one
    other = decide(found.state, view(_9=(TWIN, 7)), ThisHost(IP("192.0.2.12"), MAC))
    assert isinstance(other.action, Write)
    assert other.action.revision == 0


# --- another public IP, and two hosts with one MAC ---


def test_a_lease_of_ours_by_the_public_ip_of_before_is_written_anew() -> None:
    found = decide(KNOWN, view(_9=(COPY, 6)), BUSY)
    assert (found.phase, found.subnet, found.problems) == ("acquiring", SUBNET, ())
    assert found.action == Write(key(SUBNET), SUBNET, 6, OURS)
    # but not one that another host has taken with that public IP
    other = decide(KNOWN, view(_9=(value("192.0.2.12", FOREIGN), 6)), BUSY)
    assert (other.phase, other.action) == ("lost", None)
    assert (
        "our subnet 10.5.9.0/24 belongs to 192.0.2.12, but these use it: network 0123"
        in other.problems[0]
    )


def test_of_a_host_and_its_copy_the_one_that_had_the_lease_first_keeps_it() -> None:
    found = decide(HELD, view(_9=(COPY, 6)), BUSY)
    assert found.action == Write(key(SUBNET), SUBNET, 6, OURS), "it is put right once"
    again = decide(found.state, view(_9=(COPY, 8)), BUSY)
    assert (again.phase, again.action) == ("refused", None), "and not fought about"
    # the copy, which has taken it for its own
    copy = ThisHost(IP("192.0.2.12"), MAC, in_use="network 0123456789ab")
    taken = decide(KNOWN, view(_9=(OURS, 5)), copy)
    assert taken.action == Write(key(SUBNET), SUBNET, 5, COPY)
    held = replace(taken.state, held=HeldLease(SUBNET, 6, NOW + 50, COPY))
    yielded = decide(held, view(_9=(OURS, 7)), copy)
    assert (yielded.phase, yielded.action, yielded.subnet) == ("refused", None, None)
    assert yielded.problems == (
        f"another host, with the public IP 192.0.2.11, has the lease of {SUBNET} with our own MAC "
        f"{MAC}: one of the two is a copy of the other: empty the state folder of the copy; if "
        f"there is no other host, delete the key {key(SUBNET)}",
    )
    assert decide(yielded.state, view(_9=(OURS, 8)), copy).phase == "refused"
    assert isinstance(decide(yielded.state, view(), copy).action, Write), "it is gone"


def test_the_reason_names_what_is_the_same() -> None:
    refused = decide(replace(HELD, elder=(HOST_99, math.inf)), view(_9=(TWIN, 6)))
    assert refused.problems == (
        f"another host, with the MAC {FOREIGN}, has the lease of {SUBNET} with our own public IP "
        "192.0.2.11: give one of the two another public IP; if there is no other host, delete the "
        f"key {key(SUBNET)}",
    )
