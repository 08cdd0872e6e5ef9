"""Marks, and machines that several tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.base import SUITES
from tests.vm.lab import Lab
from tests.vm.scene import times


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="module", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """Return each Debian release in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def lab(suite: str) -> Iterator[Lab]:
    """Yield a LAN for machines of a release; it is gone after the module."""
    with Lab(suite) as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the times that the tests measured."""
    if times:
        terminalreporter.section("times")
        terminalreporter.line("\n".join(times))
