"""The slow path: failures, locks and waking, and leases that change."""

from __future__ import annotations

import threading
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from driver.core.passes import SOON_S, Report
from driver.errors import HostError, StoreError
from driver.flannel.local_source import LocalSource
from driver.model.facts import Facts
from driver.model.firewall import ForwardGate, Ruleset
from driver.model.objects import LinkAddress, Plan, UnreachableRoute, Veth
from driver.model.records import replace, short
from tests.unit.bench import NETWORK, WELL, Bench, make_core
from tests.unit.docker import Container, Docker, Net, port
from tests.unit.fakes import FACTS

# --- failures ---


def test_a_host_that_cannot_be_read_is_told_and_left_alone(bench: Bench, made: Container) -> None:
    bench.passes(1)
    objects = bench.observed()
    for blind in (bench.nft, bench.survey):
        blind.blind = HostError("cannot see")
        bench.world.events.clear()
        for report in bench.passes(3):
            assert report.errors == ("cannot see",)
        assert bench.core.history.last is not None
        assert bench.core.history.last.errors == ("cannot see",)
        assert bench.world.events == []
        blind.blind = None
        assert str(bench.passes(1)[0]) == WELL
    assert bench.observed() == objects
    assert made.id in bench.state.endpoints


def test_a_journal_that_cannot_be_written_keeps_the_dead(bench: Bench, made: Container) -> None:
    bench.passes(1)
    bench.kernel.lose(Veth)
    bench.journal.error = StoreError("disk full")
    reports = bench.passes(3)
    assert reports[-1].errors == ("disk full",)
    assert bench.journal.load() == bench.state
    assert made.id in bench.state.endpoints
    bench.journal.error = None
    bench.passes(2)
    assert not bench.state.endpoints
    bench.assert_agrees()


@pytest.mark.usefixtures("made")
def test_what_was_done_is_kept_for_status_and_only_that(bench: Bench) -> None:
    bench.passes(3)
    before = len(bench.core.history.reports)
    bench.passes(3)
    assert len(bench.core.history.reports) == before
    for _ in range(30):
        bench.nft.lose(Ruleset)
        bench.passes(1)
        bench.passes(1)
    assert len(bench.core.history.reports) == 20


# --- locks and waking ---


@pytest.mark.usefixtures("made")
def test_a_pass_that_finds_all_right_takes_no_lock(bench: Bench) -> None:
    bench.passes(1)
    done: list[Report] = []
    with bench.core.edit():
        thread = threading.Thread(target=lambda: done.append(bench.core.converge()), daemon=True)
        thread.start()
        thread.join(2)
        assert [str(report) for report in done] == [WELL]


@pytest.mark.usefixtures("made")
def test_a_pass_that_has_to_repair_waits_for_the_lock(bench: Bench) -> None:
    bench.passes(1)
    bench.nft.lose(Ruleset)
    bench.world.events.clear()
    with bench.core.edit():
        thread = threading.Thread(target=bench.core.converge, daemon=True)
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert bench.world.events == []
    thread.join(2)
    assert not thread.is_alive()
    bench.assert_agrees()


def test_only_links_of_ours_that_differ_wake(bench: Bench, made: Container) -> None:
    end, bridge = f"flh{short(made.id)}", f"fl-{short(made.net.id)}"
    others = frozenset({"eth0", "docker0", "flh000000000000", f"flc{short(made.id)}", "fl-"})
    gateway = next(t for t in bench.observed() if isinstance(t, LinkAddress))
    extra = replace(gateway, ip=IPv4Interface("198.51.100.1/24"))
    bench.woken()  # by the first network

    def wakes(*names: str) -> bool:
        bench.loop.links_changed(frozenset(names))
        return bench.woken()

    assert not wakes() and not wakes(*others)
    assert not wakes("eth0", end, bridge), "all is as it should be"
    assert wakes("")
    veth = bench.kernel.objects[Veth.key_of(end)]
    assert isinstance(veth, Veth)
    bench.kernel.plant(replace(veth, hairpin=not veth.hairpin))
    assert not wakes(bridge, *others)
    assert wakes("eth0", end)
    bench.kernel.plant(extra)
    assert wakes(bridge)
    bench.passes(1)
    bench.kernel.lose(Veth)
    assert not wakes(bridge)
    assert wakes(end)


def test_what_a_call_is_about_to_do_is_no_drift(bench: Bench, made: Container) -> None:
    """The kernel tells of a change before the call that makes it has changed the state."""
    end, told = f"flh{short(made.id)}", list[bool]()
    bench.woken()
    apply = bench.kernel.apply

    def late(plan: Plan) -> None:
        apply(plan)
        if plan and not told:
            told.append(True)
            thread = threading.Thread(target=bench.loop.links_changed, args=(frozenset({end}),))
            thread.start()
            threads.append(thread)

    threads = list[threading.Thread]()
    bench.kernel.apply = late  # type: ignore[method-assign]
    Docker(bench).publish(made)
    threads[0].join(5)
    assert not bench.woken()


@pytest.mark.usefixtures("made")
def test_a_loop_makes_a_pass_when_it_is_woken_and_ends_when_told(bench: Bench) -> None:
    stop, seen = threading.Event(), threading.Event()
    bench.nft.lose(Ruleset)

    def facts() -> Facts:
        seen.set()
        return FACTS

    bench.survey.facts = facts  # type: ignore[method-assign]
    bench.core.wake()
    thread = threading.Thread(target=bench.loop.run, args=(stop,), daemon=True)
    thread.start()
    assert seen.wait(5)
    stop.set()
    bench.core.wake()
    thread.join(5)
    assert not thread.is_alive()
    bench.assert_agrees()


@pytest.mark.usefixtures("made")
def test_a_loop_makes_a_pass_when_somebody_touched_the_firewall(bench: Bench) -> None:
    stop, healed = threading.Event(), threading.Event()
    bench.nft.lose(Ruleset)
    apply = bench.nft.apply

    def heal(plan: Plan) -> None:
        apply(plan)
        healed.set()

    bench.nft.apply = heal  # type: ignore[method-assign]
    bench.survey.changed = True
    thread = threading.Thread(target=bench.loop.run, args=(stop,), daemon=True)
    thread.start()
    assert healed.wait(10)
    stop.set()
    bench.core.wake()
    thread.join(5)
    bench.assert_agrees()


@pytest.mark.usefixtures("made")
def test_what_was_repaired_is_looked_at_again_soon(bench: Bench) -> None:
    bench.passes(1)
    bench.gate.lose(ForwardGate)
    assert bench.core.again_s() is None
    bench.passes(1)
    assert bench.core.again_s() == SOON_S, "or a fight would count what lies far apart"
    bench.passes(1)
    assert bench.core.again_s() is None


def test_a_start_with_nothing_wrong_repairs_nothing_and_says_so(
    bench: Bench, made: Container, caplog: pytest.LogCaptureFixture
) -> None:
    Docker(bench).publish(made, port(80, 8080))
    caplog.set_level("INFO")
    bench.boot()
    assert caplog.messages == [f"pass: {WELL}"]
    assert not bench.core.history.reports
    bench.assert_agrees()
    bench.gate.lose(ForwardGate)
    caplog.clear()
    bench.boot()
    assert caplog.messages == ["pass: repaired 1 forward gate"]


@pytest.mark.usefixtures("made")
def test_a_start_observes_the_host_once(bench: Bench) -> None:
    bench.nft.looks = 0
    bench.reboot()
    assert bench.nft.looks == 1


# --- leases ---


def with_file(tmp_path: Path, text: str | None) -> tuple[Bench, Path]:
    file = tmp_path / "subnet.env"
    if text is not None:
        file.write_text(text)
    return make_core(LocalSource("subnet-file", NETWORK, 24, file)), file


ENV = "FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.5.1/24\nFLANNEL_MTU=1450\n"


def test_a_lease_that_comes_late_is_adopted(tmp_path: Path) -> None:
    bench, file = with_file(tmp_path, None)
    assert bench.state.lease is None
    problems = bench.core.lease_status.problems
    assert problems == (f"lease file {file} is not there; start flanneld",)
    file.write_text(ENV)
    bench.passes(1)
    assert bench.core.lease_status.problems == ()
    assert bench.journal.load().lease == bench.state.lease
    assert Docker(bench).create_network().block == "10.2.5.0/27"
    bench.assert_agrees()


def test_a_lease_that_moves_is_adopted_and_old_networks_live_on(tmp_path: Path) -> None:
    bench, file = with_file(tmp_path, ENV)
    docker = Docker(bench)
    old = docker.start(docker.create_network())
    file.write_text(ENV.replace("10.2.5.1", "10.2.9.1"))
    bench.passes(1)
    assert UnreachableRoute(IPv4Network("10.2.9.0/24")) in bench.observed()
    assert UnreachableRoute(IPv4Network("10.2.5.0/24")) not in bench.observed()
    assert docker.create_network().block == "10.2.9.0/27"
    assert set(bench.state.endpoints) == {old.id}
    bench.assert_agrees()
    docker.stop(old)
    docker.remove_network(Net(old.net.id, old.net.pool, gateway=old.net.gateway))
    assert old.net.id not in bench.state.networks


def test_a_lease_file_that_goes_leaves_the_lease(tmp_path: Path) -> None:
    bench, file = with_file(tmp_path, ENV)
    lease = bench.state.lease
    file.unlink()
    bench.passes(2)
    assert bench.state.lease == lease
    assert bench.core.lease_status.problems
    Docker(bench).create_network()
    bench.assert_agrees()


def test_a_lease_of_another_source_is_given_up_when_nothing_uses_it(tmp_path: Path) -> None:
    bench = make_core()
    before = bench.state.lease
    assert before is not None
    bench.leases = LocalSource("subnet-file", NETWORK, 24, tmp_path / "subnet.env")
    bench.boot()
    assert bench.state.lease is None
    assert bench.journal.load() == bench.state
