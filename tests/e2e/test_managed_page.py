"""The commands of the managed plugin's page, on a host that has Docker and nothing of ours."""

from __future__ import annotations

import json

from tests import pages
from tests.bed import Bed, assert_no_leaks
from tests.e2e import managed
from tests.e2e.leaving import baseline


def test_the_commands_of_its_page(bed: Bed) -> None:
    host = bed.host("h1")
    host.start_dockerd()
    managed.serve_registry(host, bed.folder / "registry")
    managed.publish(host, managed.built())
    before = baseline(host)
    for command in (
        *pages.commands("plugin/README.md", "The managed plugin"),
        *pages.commands("plugin/README.md", "Settings"),
    ):
        words = command.replace("registry.example", managed.REGISTRY).split()
        assert words.pop(0) == "docker"
        host.docker(*words)
    assert "DOCKER_FLANNEL_LOG_LEVEL=debug" in managed.plugin(host)["Settings"]["Env"]
    [ask] = pages.commands("plugin/README.md", "Status and log")
    assert len(json.loads(host.run(*ask.split()).stdout)["networks"]) == 1
    host.docker("network", "rm", "app")
    host.docker("plugin", "disable", managed.NAME)
    host.docker("plugin", "rm", managed.NAME)
    assert_no_leaks(host, before)
