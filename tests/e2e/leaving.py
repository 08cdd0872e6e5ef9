"""How a test leaves a host: as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.bed import Host, Snapshot, assert_no_leaks, snapshot, wait_for

# The order in which blocks were given back; threads and connections that come and go with load;
# Docker's own jump, which dockerd doubles when two networks are made at once.
MAY_DIFFER = ("row: freed/*", "plugin: *", "*FORWARD*DOCKER-USER*")
BRIDGE = "docker: network *"  # Docker's own gets a new id when dockerd starts


def tidy(host: Host) -> None:
    """Remove all containers, and the networks that are then unused."""
    left = host.docker("ps", "-aq").stdout.split()
    if left:
        host.docker("rm", "-f", *left)
    host.docker("network", "prune", "-f")


def baseline(host: Host) -> Snapshot:
    """Take a snapshot once the last veths are gone and the gate is where Docker wants it."""
    wait_for(lambda: " flc" not in host.run("ip", "link").stdout, "the last veths to go")
    wait_for(lambda: _gate_has_moved(host), "the gate to move to Docker's chain", 20)
    return snapshot(host)


def _gate_has_moved(host: Host) -> bool:
    """Whether the gate, made while dockerd was starting, is in DOCKER-USER; news moves it."""
    lines = host.run("iptables-save", "-t", "filter", check=False).stdout.splitlines()
    rules = [line for line in lines if line.startswith("-A FORWARD ")]
    return not ("-A FORWARD -j DOCKER-USER" in rules and any("DKFLANNEL" in r for r in rules))


@contextmanager
def as_it_was(host: Host) -> Iterator[Host]:
    """Tidy up and check for leaks as conftest does; dockerd may be another one afterwards."""
    before, networks = baseline(host), network_names(host)
    yield host
    tidy(host)
    assert network_names(host) == networks
    assert_no_leaks(host, before, ignore=(*MAY_DIFFER, BRIDGE))


def network_names(host: Host) -> list[str]:
    return sorted(host.docker("network", "ls", "--format", "{{.Name}}").stdout.split())
