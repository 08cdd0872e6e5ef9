"""Whatever others do to the firewall, published ports answer again within about two seconds.

The time is printed, not asserted. A connection through a port outlives all of it. What ufw and
firewalld do is done with the commands that they run, not by themselves: they are not installed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bed import Bed, Host, Node, wait_for
from tests.e2e.helpers import container, enter, network, web

ECHO = str(Path(__file__).with_name("echo.py"))
LIMIT_S = 30
PROBE_S = 1  # a try that finds nothing takes so long

# ufw 0.36: `ufw reload` sets the policies and writes its own chains anew; with MANAGE_BUILTINS
# in /etc/default/ufw it flushes everybody's first (ufw-init-functions: ufw_start, flush_builtins).
UFW_RELOAD = """
iptables -P INPUT DROP
iptables -P FORWARD DROP
iptables-restore -n <<END
*filter
:ufw-before-forward - [0:0]
:ufw-reject-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
END
iptables -P INPUT ACCEPT
"""
UFW_BUILTINS = """
iptables -F
iptables -X
iptables -t nat -F
iptables -t nat -X
iptables -t mangle -F
iptables -t mangle -X
iptables -P FORWARD DROP
"""
# firewalld 2 with its iptables backend, or with runtime direct rules (core/ipXtables.py:
# build_flush_rules, build_set_policy_rules); then its table of the nftables backend.
FIREWALLD_RELOAD = """
for table in raw mangle nat filter; do
  iptables -t $table -F; iptables -t $table -X; iptables -t $table -Z
done
for chain in INPUT FORWARD OUTPUT; do iptables -P $chain DROP; done
for chain in INPUT FORWARD OUTPUT; do iptables -P $chain ACCEPT; done
nft -f - <<END
add table inet firewalld
delete table inet firewalld
table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority 10; policy accept;
    ct state established,related accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
  }
}
END
"""
DAMAGE = {
    "iptables -F": "iptables -F",
    "nft delete table": "nft delete table inet docker_flannel",
    "nft flush ruleset": "nft flush ruleset",
    "ufw reload": UFW_RELOAD,
    "ufw reload, MANAGE_BUILTINS": UFW_BUILTINS,
    "firewalld reload": FIREWALLD_RELOAD,
}


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Yield a bed for this module alone: what is done to its host is not undone."""
    with Bed() as made:
        yield made


@pytest.fixture(scope="module")
def site(bed: Bed) -> Site:
    """Return a container with published ports, and someone who talks to it all the time."""
    host, visitor = bed.host("heal"), bed.client("visitor")
    host.start_plugin({"DOCKER_FLANNEL_LOG_LEVEL": "debug"})
    host.start_dockerd(live_restore=True)
    host.load_image()
    return Site(host, visitor)


class Site:
    def __init__(self, host: Host, visitor: Node) -> None:
        self.host, self.visitor = host, visitor
        network(host, "app")
        web(host, "web", "app", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "7000:70")
        container(host, "near", "app")
        host.popen(*enter(host, "web"), sys.executable, ECHO, "lines", "70")
        wait_for(self.answers, "the ports")
        wait_for(lambda: ":0046 " in self._listening(), "the server of lines")
        self.talk = visitor.popen(sys.executable, ECHO, "talk", host.address, "7000")
        wait_for(lambda: self.lines() > 0, "the first line")

    def _listening(self) -> str:
        return self.host.run(*enter(self.host, "web"), "cat", "/proc/net/tcp").stdout

    def answers(self) -> bool:
        """Whether the ports are reached from outside and here, and the container gets out."""
        url = f"http://{self.host.address}:8080/"
        return (
            self.visitor.reaches(url, PROBE_S)
            and self.host.reaches("http://127.0.0.1:8081/", PROBE_S)
            and self.leaves()
        )

    def leaves(self) -> bool:
        words = ("timeout", "1", "ping", "-c", "1", self.visitor.address)
        return self.host.docker("exec", "near", *words, check=False).ok

    def lines(self) -> int:
        return self.talk.log().count("line")

    def heals(self, name: str, damage: Callable[[], object]) -> None:
        """Do damage; wait until all answers again, and what was connected goes on."""
        damage()
        began = time.monotonic()
        wait_for(self.answers, f"the ports after {name}", LIMIT_S)
        print(f"after {name}: {time.monotonic() - began:.1f} s until all three answered")  # noqa: T201
        before = self.lines()
        wait_for(lambda: self.lines() > before + 1, "the connection to go on", LIMIT_S)
        assert self.talk.running()


@pytest.mark.parametrize("name", DAMAGE)
def test_ports_answer_again(site: Site, name: str) -> None:
    site.heals(name, lambda: site.host.run("sh", "-c", DAMAGE[name]))


def test_ports_answer_while_dockerd_restarts(site: Site) -> None:
    site.heals("a restart of dockerd", site.host.restart_dockerd)


def test_legacy_iptables_that_comes_and_is_flushed(site: Site) -> None:
    """The gate is written where a second iptables drops what is forwarded, and again."""
    drop = "iptables-legacy -P FORWARD DROP"
    site.heals("legacy iptables that drops", lambda: site.host.run(*drop.split()))
    assert "DKFLANNEL" in site.host.run("iptables-legacy-save").stdout
    site.heals("iptables-legacy -F", lambda: site.host.run("iptables-legacy", "-F"))
    assert "DKFLANNEL" in site.host.run("iptables-legacy-save").stdout
