"""The firewall's backends: which is in use, that only one is, and that it heals."""

from __future__ import annotations

import pytest

from tests.bed import Bed, Host, Node, snapshot, wait_for
from tests.e2e.helpers import BACKENDS, network, settings, status, web

HEALED_S = 10
JUMP = "-m comment --comment docker-flannel -j DKFLANNEL"
IPTABLES = (
    "-t nat -F DKFLANNEL-TCP",
    "-t mangle -I DKFLANNEL-FORWARD -j DROP",
    f"-t nat -D PREROUTING {JUMP}-PRE",
)
DAMAGE = {
    "nft": ("nft flush table inet docker_flannel",),
    **{name: tuple(f"{name} -w {words}" for words in IPTABLES) for name in BACKENDS[1:]},
}


def carriers(host: Host) -> set[str]:
    """Which backends have rules on a host; the gate, in filter, is none of theirs."""
    found = set()
    for line in snapshot(host).lines:
        kind, _, rest = line.partition(": ")
        program, table, *_ = rest.split(" ")
        if kind == "nft" and "inet docker_flannel" in rest:
            found.add("nft")
        elif kind == "iptables" and "DKFLANNEL" in rest and table != "filter":
            found.add(program)
    return found


@pytest.mark.each_backend
def test_the_backend_is_told_alone_and_heals(host: Host, visitor: Node, backend: str) -> None:
    assert status(host)["firewall"] == backend
    assert carriers(host) == set()
    network(host, "app")
    web(host, "web", "app", "-p", "8080:80")

    def answers() -> bool:
        return visitor.reaches(f"http://{host.address}:8080/", 2)

    wait_for(answers, "the port")
    assert carriers(host) == {backend}
    for command in DAMAGE[backend]:
        whole, repairs = snapshot(host), len(status(host)["repaired"])
        host.run(*command.split())
        wait_for(lambda: len(status(host)["repaired"]) > repairs, "a repair", HEALED_S)
        ours = [line for line in whole.lines if "DKFLANNEL" in line]
        assert [line for line in snapshot(host).lines if "DKFLANNEL" in line] == ours
        assert answers()
    host.kill_plugin()
    assert answers(), "the rules outlive the plugin"
    host.start_plugin(settings(backend))
    assert status(host)["firewall"] == backend
    assert carriers(host) == {backend}
    host.docker("rm", "-f", "web")
    assert not visitor.reaches(f"http://{host.address}:8080/", 2)
    host.docker("network", "rm", "app")
    assert carriers(host) == set()


def test_a_change_of_backend_leaves_nothing_of_the_other(bed: Bed, visitor: Node) -> None:
    host = bed.host("other")
    host.start_plugin()
    host.start_dockerd()
    host.load_image()
    network(host, "app")
    web(host, "web", "app", "-p", "8080:80")
    for backend in (*BACKENDS, "nft"):
        host.stop_plugin()
        if backend == "iptables-legacy":
            host.run("update-alternatives", "--set", "iptables", "/usr/sbin/iptables-legacy")
        host.start_plugin(settings(backend))
        wait_for(lambda: carriers(host) == {backend}, f"{backend} alone to be in use")
        assert visitor.reaches(f"http://{host.address}:8080/", 5)
        assert status(host)["problems"] == []
