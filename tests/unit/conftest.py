"""Fixtures that several files use."""

from __future__ import annotations

import pytest

from tests.unit.bench import Bench, make_core
from tests.unit.docker import Container, Docker, port
from tests.unit.plugin import Setting


@pytest.fixture
def on() -> Setting:
    """Return the plugin over HTTP, and a dockerd that uses it."""
    return Setting()


@pytest.fixture
def bench() -> Bench:
    return make_core()


@pytest.fixture
def docker(bench: Bench) -> Docker:
    return Docker(bench)


@pytest.fixture
def made(docker: Docker) -> Container:
    """Return a running container with a published port."""
    return docker.start(docker.create_network(), port(80, 8080))
