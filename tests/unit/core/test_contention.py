"""Fights: what something else undoes again and again, and what fails again and again."""

from __future__ import annotations

from ipaddress import IPv4Interface
from itertools import pairwise

import pytest

from driver.api.status import document
from driver.core.contention import LONGEST_S, MANY
from driver.errors import HostError
from driver.model.firewall import FirewallEntry, ForwardGate, Ruleset
from driver.model.objects import RANK, Bridge, LinkAddress, Sysctl, UnreachableRoute
from tests.unit.bench import Bench
from tests.unit.docker import Container, Docker
from tests.unit.fake_adapters import nothing

HARMLESS = {
    "Bridge", "Veth", "Vxlan", "LinkAddress", "Neighbour", "Fdb", "PeerRoute", "SandboxAddress",
    "PortSocket",
}  # fmt: skip


def test_every_kind_has_its_place() -> None:
    """A new kind of objects isolates, or may be left alone for seconds: that has to be decided."""
    assert {kind.__name__ for kind in RANK if not kind.isolates} == HARMLESS


@pytest.mark.usefixtures("made")
def test_what_isolates_is_put_back_in_every_pass(bench: Bench) -> None:
    bench.passes(1)
    for kind in (Ruleset, FirewallEntry, ForwardGate, Sysctl, UnreachableRoute):
        for _ in range(40):
            for adapter in bench.adapters:
                adapter.lose(kind)
            bench.passes(1, apart_s=0.7)
            bench.assert_agrees()


@pytest.mark.usefixtures("made")
def test_what_else_is_undone_again_and_again_waits_for_seconds(bench: Bench) -> None:
    bench.passes(1)
    times = []
    for _ in range(400):
        bench.kernel.lose(LinkAddress)
        times += [report.at for report in bench.passes(1, apart_s=0.5) if report.repaired]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[: MANY + 4] == [0.5] * (MANY - 1) + [2, 4, 8, 16, LONGEST_S]
    assert max(waits) == LONGEST_S
    bench.passes(1, apart_s=LONGEST_S)
    bench.passes(1, apart_s=2)
    bench.kernel.lose(LinkAddress)
    assert bench.passes(1, apart_s=0.5)[0].repaired == ("1 link address",), "peace was not noticed"
    bench.assert_agrees()


@pytest.mark.usefixtures("made")
def test_a_fight_is_told_in_problems_and_now_and_then_in_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench.passes(1)
    for _ in range(100):
        bench.gate.lose(ForwardGate)
        bench.passes(1, apart_s=0.5)
    [told] = [p for p in document(bench.core)["problems"] if "gate" in p]
    assert told == (
        "forward gate nft: something else has undone it 99 times within 50 s, and it is put back "
        "in each pass; find out what changes it"
    )
    assert (
        len(caplog.records) == len(bench.core.history.reports) == MANY + 4
    )  # the 8th, 16th, 32nd, 64th
    bench.passes(1, apart_s=3)
    assert document(bench.core)["problems"] == []


@pytest.mark.usefixtures("made")
def test_a_fight_over_one_thing_keeps_no_other_from_repair(bench: Bench) -> None:
    for _ in range(MANY + 2):
        bench.kernel.lose(LinkAddress)
        bench.passes(1, apart_s=0.5)
    assert not any(isinstance(item, LinkAddress) for item in bench.observed())
    bench.kernel.lose(Sysctl)
    assert bench.passes(1, apart_s=0.5)[0].repaired == ("3 sysctl",)


def test_a_call_repairs_also_what_is_fought_over(bench: Bench, made: Container) -> None:
    for _ in range(MANY + 2):
        bench.kernel.lose(Bridge)
        bench.passes(1, apart_s=0.5)
    bench.kernel.lose(Bridge)
    Docker(bench).start(made.net)
    assert any(isinstance(item, Bridge) for item in bench.observed())


@pytest.mark.usefixtures("made")
def test_what_failed_is_not_said_to_be_repaired(bench: Bench) -> None:
    bench.passes(1)
    bench.kernel.lose(LinkAddress)
    bench.gate.lose(ForwardGate)
    bench.kernel.refuse = lambda t: (
        HostError("no such link") if isinstance(t, LinkAddress) else None
    )
    for _ in range(3 * MANY):
        [report] = bench.passes(1, apart_s=0.5)
        assert report.errors == ("no such link",), "told for as long as it is so"
        assert "address" not in str(report.repaired)
    assert bench.core.history.reports[-1].repaired == ("1 forward gate",)
    assert document(bench.core)["problems"] == ["no such link"]
    bench.kernel.refuse = nothing
    assert bench.passes(1, apart_s=LONGEST_S)[0].repaired == ("1 link address",)
    bench.assert_agrees()


def test_what_cannot_be_taken_away_is_told_and_not_said_to_be_repaired(bench: Bench) -> None:
    bench.passes(1)
    extra = LinkAddress("fl-other", IPv4Interface("10.9.9.1/24"))
    bench.kernel.plant(extra)
    bench.kernel.stuck = {extra.key}
    [report] = bench.passes(1)
    assert (report.repaired, report.errors) == ((), (f"{extra.key} cannot be removed",))
    bench.kernel.stuck = set()
    assert bench.passes(1)[0].repaired == ("1 link address",)
