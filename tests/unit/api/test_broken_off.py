"""What a call that broke off has left behind gives way at once to the next that wants its place.

No clock moves in here: nothing has to become old first.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.bench import Bench, make_core
from tests.unit.docker import Container, Docker, Net, Refused, direct, port
from tests.unit.plugin import Setting

FIXED = "10.2.0.20"
KINDS = ["flannel", "docker", "off"]  # who gives the addresses
UNDO = ["NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress"]


class Line:
    """What dockerd sends goes through here: calls that are `lost` break off before they arrive."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.lost = bench, set[str]()
        self.joined_at = 0
        self._send = direct(bench)

    def __call__(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if method in self.lost:
            raise Refused("the connection broke")
        if method == "NetworkDriver.Join":
            self.joined_at = self.bench.world.steps
        return self._send(method, body)


class Site:
    """A network, and a container that starts there again and again."""

    def __init__(self, kind: str) -> None:
        self.bench = make_core()
        self.line = Line(self.bench)
        self.docker = Docker(self.bench, self.line)
        short = kind != "flannel"
        self.net = self.docker.create_short(kind) if short else self.docker.create_network()
        self.wanted = "" if short else FIXED

    def start(self) -> Container:
        return self.docker.start(self.net, port(80, 8080), wanted=self.wanted)

    def check(self, made: Container) -> None:
        """The container runs at its place, and it is the only one."""
        assert self.bench.state.endpoints[made.id].sandbox
        self.bench.passes(6)
        assert list(self.bench.state.endpoints) == [made.id]
        self.bench.assert_agrees()


def steps_of_a_start(kind: str) -> tuple[int, int, int]:
    """Count the steps until it begins, until it joins, and until it has ended."""
    site = Site(kind)
    begin = site.bench.world.steps
    site.start()
    return begin, site.line.joined_at, site.bench.world.steps


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_breaks_off_at_any_step_is_followed_by_one_that_works(
    kind: str, *, heard: bool
) -> None:
    """Unless it is `heard` what Docker calls to undo it is lost, too."""
    begin, joined, end = steps_of_a_start(kind)
    steps = range(begin + 1, (end if heard else joined) + 1)
    assert len(steps) > 4
    for step in steps:
        site = Site(kind)
        site.bench.world.crash_at = step
        if not heard:
            site.line.lost = set(UNDO)
        try:
            made = site.start()
        except Refused:
            site.line.lost = set()
            made = site.start()
        site.check(made)


@pytest.mark.parametrize("restarts", ["docker-flannel", "dockerd"])
@pytest.mark.parametrize("lost", [*([call] for call in UNDO), UNDO], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_stop_that_broke_off_a_start_works(
    kind: str, lost: list[str], restarts: str
) -> None:
    site = Site(kind)
    made = site.start()
    site.line.lost = set(lost)
    site.docker.stop(made)
    if restarts == "dockerd":
        site.bench.core.docker_restarted()
    else:
        site.bench.boot()
    site.line.lost = set()
    site.check(site.start())


@pytest.mark.parametrize("restart", [True, False])
def test_a_start_on_its_way_loses_its_place_only_when_nothing_else_is_left(
    *, restart: bool
) -> None:
    bench = make_core()
    docker = Docker(bench)
    net = docker.create_network("10.2.0.0/29")  # five containers'
    late = [docker.address(net) for _ in range(2)]
    body = {"NetworkID": net.id, "EndpointID": "e" * 64, "Interface": {"Address": late[0]}}
    bench.call("NetworkDriver.CreateEndpoint", **body)
    if restart:
        bench.boot()
    others = [docker.start(net) for _ in range(3)]
    assert not {made.address for made in others} & set(late)
    if not restart:
        with pytest.raises(Refused, match="no free address"):
            docker.start(net)
        return
    assert {docker.start(net).address for _ in range(2)} == set(late)
    with pytest.raises(Refused, match="no free address"):
        docker.start(net)


def test_a_dockerd_that_starts_goes_on_with_nothing_that_another_one_had_begun(on: Setting) -> None:
    net = on.docker.create_network()
    address = on.docker.address(net, FIXED)
    body = {"NetworkID": net.id, "EndpointID": "e" * 64, "Interface": {"Address": address}}
    on.bench.call("NetworkDriver.CreateEndpoint", **body)
    with pytest.raises(Refused, match="already in use"):
        on.docker.start(net, wanted=FIXED)
    on.plugin.call("NetworkDriver.GetCapabilities")
    made = on.docker.start(net, wanted=FIXED)
    assert list(on.bench.state.endpoints) == [made.id]
    on.plugin.call("NetworkDriver.GetCapabilities")
    with pytest.raises(Refused, match="already in use"):
        on.docker.start(net, wanted=FIXED)


def test_the_address_of_another_drivers_container_is_nobodys_to_give() -> None:
    """Its endpoints are not ours to see, so that none of them can be known to be gone."""
    bench = make_core()
    docker = Docker(bench)
    reply = bench.call("IpamDriver.RequestPool", AddressSpace="flannel", Pool="10.2.0.0/30")
    net = Net(docker.new_id(), reply["PoolID"])
    taken = docker.address(net, "10.2.0.2")
    docker.address(net)
    bench.boot()
    for wanted in ("", taken.partition("/")[0]):
        with pytest.raises(Refused, match=r"no free address|already in use"):
            docker.address(net, wanted)
