"""A container comes back to its address: after a stop, a restart, and when the machine restarts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.bed import Host, Node, wait_for
from tests.e2e.helpers import address, answers, container, enter, inspect, switch_off_and_on
from tests.e2e.short_form import create, lease_ip, settled

OWN = ("-d", "flannel", "--ipam-driver", "flannel", "--subnet", "10.2.8.0/29")  # five containers'
ALWAYS = ("--restart", "always")


def starts_again(host: Host, name: str, told: Callable[[], str]) -> None:
    """A container has the same address after a restart, and after a stop and a start."""
    before = told()
    for words in (["restart"], ["stop"], ["start"]):
        host.docker(*words, *(["-t", "0"] if words != ["start"] else []), name)
    assert told() == before


def test_an_address_asked_for_by_name_waits_for_its_container(machine: Host, visitor: Node) -> None:
    host = machine
    host.docker("network", "create", *OWN, "own")
    own = partial(address, host, network="own")
    create(host, "plain", "--subnet", "172.30.0.0/24")
    plain = partial(settled, host, net="plain")
    fixed = container(host, "fixed", "own", "--ip", "10.2.8.3", *ALWAYS)
    container(host, "roams", "own", *ALWAYS)
    container(host, "plain-fixed", "plain", "--ip", "172.30.0.50", *ALWAYS)
    container(host, "plain-roams", "plain", *ALWAYS)
    before = {"fixed": fixed, "roams": own("roams")}
    leases = {name: plain(name) for name in ("plain-fixed", "plain-roams")}

    host.docker("stop", "-t", "0", "fixed", "plain-fixed")
    others = [container(host, f"other{n}", "own") for n in range(3)]
    assert fixed not in others
    host.docker("rm", "-f", "other2")
    assert container(host, "other3", "own") != fixed, "the walk has come round"
    container(host, "plain-other", "plain")
    assert plain("plain-other") not in leases.values()
    host.docker("start", "fixed", "plain-fixed")
    assert own("fixed") == fixed
    assert plain("plain-fixed") == leases["plain-fixed"]

    starts_again(host, "roams", lambda: own("roams"))
    starts_again(host, "plain-roams", lambda: plain("plain-roams"))
    starts_again(host, "plain-fixed", lambda: plain("plain-fixed"))

    host.docker("rm", "-f", *(f"other{n}" for n in (0, 1, 3)), "plain-other")
    switch_off_and_on(host, visitor)
    for name in (*before, *leases):
        wait_for(lambda: inspect(host, "container", name)["State"]["Running"], f"{name} to run")
    assert {name: own(name) for name in before} == before
    assert {name: lease_ip(host, name, "plain") for name in leases} == leases


SOON_S = 5.0  # a bridge may take a second for a new port; what has the old MAC in mind, 8 to 40
MACS = ("02:42:00:00:00:01", "02:42:00:00:00:02")


@pytest.mark.parametrize(
    ("words", "ip"),
    [
        (("--ipam-driver", "flannel", "--subnet", "10.2.9.0/29"), "10.2.9.3"),
        (("--subnet", "172.31.0.0/24"), "172.31.0.50"),
    ],
)
def test_an_address_that_has_another_mac_is_reached_at_once(
    machine: Host, words: tuple[str, ...], ip: str
) -> None:
    """Also by who sends to it all the time, and while it was away."""
    host = machine
    host.docker("network", "create", "-d", "flannel", *words, "macs")
    container(host, "near", "macs")

    def start(mac: str) -> set[str]:
        container(host, "changes", "macs", "--ip", ip, "--mac-address", mac)
        return {ip, settled(host, "changes", "macs") if ip.startswith("172.") else ip}

    ips = start(MACS[0])
    for target in ips:
        wait_for(lambda: answers(host, "near", target) and host_pings(host, target), "an answer")
        host.popen(*enter(host, "near"), "ping", "-i", "0.2", target, log_name=f"ping-{target}")
    host.docker("rm", "-f", "changes")
    assert start(MACS[1]) == ips
    for target in ips:
        for asked in (partial(answers, host, "near", target), partial(host_pings, host, target)):
            wait_for(asked, f"{target} with another MAC", SOON_S)
    host.docker("rm", "-f", "changes", "near")
    host.docker("network", "rm", "macs")


def host_pings(host: Host, target: str) -> bool:
    """Whether a target answers the host itself within a second."""
    return host.run("ping", "-c", "1", "-W", "1", "-w", "1", target, check=False).ok
