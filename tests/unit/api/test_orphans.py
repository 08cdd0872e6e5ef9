"""Networks that Docker removed unheard, and those that only seem so."""

from __future__ import annotations

from driver.api.orphans import AGAIN_S, SELDOM_S, SOON_S, YOUNG_S, Docker, OrphanNetworks
from driver.errors import Unavailable
from tests.unit.plugin import Setting


class Dockerd:
    """A dockerd that lists networks, and the clock."""

    def __init__(self, on: Setting) -> None:
        self.on, self.now = on, 1000.0
        self.process = 7
        self.listed: set[str] | None = set()
        docker = Docker(lambda: self.process, self.networks, self.links)
        self.bygone = OrphanNetworks(on.bench.core, docker, lambda: self.now)

    def networks(self) -> frozenset[str]:
        if self.listed is None:
            raise Unavailable("it is starting")
        return frozenset(self.listed)

    def links(self) -> frozenset[str]:
        return self.on.bench.survey.links()

    def look(self) -> float:
        """Look, and let the time go by until the next look."""
        pause_s = self.bygone.look()
        self.now += pause_s
        return pause_s


def held(on: Setting) -> int:
    return len(on.bench.state.networks) + len(on.bench.state.pools)


def test_two_answers_without_a_network_forget_it_and_its_block(on: Setting) -> None:
    gone, kept = on.docker.create_network(), on.docker.create_network()
    dockerd = Dockerd(on)
    dockerd.listed = {kept.id, "x" * 64}
    assert [dockerd.look(), dockerd.look()] == [SOON_S, SOON_S], "the start, and the first answer"
    assert held(on) == 4
    dockerd.look()
    assert set(on.bench.state.networks) == {kept.id} != {gone.id}
    assert held(on) == 2
    dockerd.look()
    assert dockerd.look() == SELDOM_S
    on.bench.assert_agrees()


def test_what_is_listed_again_counts_anew(on: Setting) -> None:
    net = on.docker.create_network()
    dockerd = Dockerd(on)
    for listed in (set(), set(), {net.id}, set(), None, set()):
        dockerd.listed = listed
        pause_s = dockerd.look()
        assert pause_s in (SOON_S, SELDOM_S, AGAIN_S)
        assert held(on) == 2
    dockerd.listed = set()
    dockerd.process = 8
    dockerd.look()
    dockerd.look()
    assert held(on) == 2, "another dockerd has to say it twice, too"
    dockerd.look()
    assert held(on) == 0


def test_a_network_that_is_being_made_is_left_alone(on: Setting) -> None:
    dockerd = Dockerd(on)
    on.docker.create_network()
    began = dockerd.now
    while dockerd.now < began + YOUNG_S:
        dockerd.look()
        assert held(on) == 2
    dockerd.look()
    dockerd.look()
    assert held(on) == 0


def test_a_network_with_a_running_container_is_another_dockerds(on: Setting) -> None:
    net, empty = on.docker.create_network(), on.docker.create_network()
    on.docker.start(net)
    dockerd = Dockerd(on)
    for _ in range(5):
        dockerd.look()
    assert held(on) == 4, "so nothing of that answer counts"
    dockerd.listed = {net.id}
    for _ in range(3):
        dockerd.look()
    assert set(on.bench.state.networks) == {net.id} != {empty.id}


def test_a_docker_that_does_not_run_is_not_asked(on: Setting) -> None:
    on.docker.create_network()
    dockerd = Dockerd(on)
    dockerd.process = 0
    dockerd.listed = None
    assert [dockerd.look() for _ in range(3)] == [SOON_S] * 3
    dockerd.process = 7
    assert [dockerd.look(), dockerd.look()] == [SOON_S, AGAIN_S]
    assert held(on) == 2
