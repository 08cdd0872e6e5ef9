"""While the plugin is dead and the firewall gone: what is closed stays closed, what runs goes on.

Once with Docker on iptables-nft, which loses its own rules with the ruleset, and once on legacy
iptables, whose policy of DROP outlives everything.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.bed import Bed, Host, Process, wait_for
from tests.e2e.helpers import asked, container, echoes, enter, gets, network, web

PORT = 9999
VARIANTS = ("nft", "legacy")


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Yield a bed for this module alone: its hosts lose their firewall."""
    with Bed() as made:
        yield made


class Site:
    """Networks a (web, near) and b (other), and a program on the host's 127.0.0.1."""

    def __init__(self, host: Host) -> None:
        self.host = host
        gateway = str(network(host, "a")[1])
        self.web = web(host, "web", "a", "-p", "127.0.0.1:8080:80")
        container(host, "near", "a")
        network(host, "b")
        self.other = web(host, "other", "b")
        serve = (
            "-m",
            "http.server",
            str(PORT),
            "--bind",
            "127.0.0.1",
            "--directory",
            "/etc/docker",
        )
        host.popen(sys.executable, *serve)
        wait_for(lambda: host.reaches(f"http://127.0.0.1:{PORT}/"), "the program on the host")
        within = enter(host, "near")
        loose = "for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 > $f; done"
        host.run(*within, "sh", "-c", loose)
        host.run(*within, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        host.run(*within, "ip", "route", "add", "127.0.0.1", "via", gateway)
        echoes(host, "web", "udp", 53)
        wait_for(self.published, "the published port")

    def published(self) -> bool:
        return self.host.reaches("http://127.0.0.1:8080/", 2)

    def attack(self) -> list[str]:
        """What containers reach that is closed to them; all ask at once, for some seconds."""
        ways = {
            "near to 127.0.0.1": ("near", f"http://127.0.0.1:{PORT}/daemon.json"),
            "a to b": ("near", f"http://{self.other}/"),
            "b to a": ("other", f"http://{self.web}/"),
        }
        with ThreadPoolExecutor() as asking:
            told = asking.submit(asked, self.host, "udp", self.web, 53, 2, within="other")
            got = asking.map(lambda way: gets(self.host, *way), ways.values())
            found = [name for name, page in zip(ways, got, strict=True) if page]
            return found + ["b to a by udp"] * bool(told.result())

    def ping(self) -> Process:
        """Ping inside network a, ten times a second."""
        words = ("ping", "-i", "0.1", "-W", "1", self.web)
        return self.host.popen(*enter(self.host, "near"), *words, log_name="ping")


def received(ping: Process) -> tuple[int, int]:
    """End a ping; return how many it sent and how many came back."""
    ping.signal(signal.SIGINT)
    ping.wait()
    sent, _, _, back, *_ = next(
        line for line in ping.log().splitlines() if "transmitted" in line
    ).split()
    return int(sent), int(back)


@pytest.mark.parametrize("variant", VARIANTS)
def test_closed_while_the_firewall_is_gone(bed: Bed, variant: str) -> None:
    host = bed.host(variant)
    for name in ("iptables", "ip6tables"):
        host.run("update-alternatives", "--set", name, f"/usr/sbin/{name}-{variant}")
    host.start_plugin({"DOCKER_FLANNEL_LOG_LEVEL": "debug"})
    host.start_dockerd()
    host.load_image()
    site = Site(host)
    assert site.attack() == []
    ping = site.ping()
    host.kill_plugin()
    if variant == "nft":
        host.run("nft", "delete", "table", "inet", "docker_flannel")
    else:
        host.run("nft", "flush", "ruleset")
    assert "-P FORWARD DROP" in host.run(f"iptables-{variant}", "-S").stdout
    assert site.attack() == []
    assert gets(host, "near", f"http://{site.web}/") == "web", "its own network is open"
    # what Docker's policy does to frames within a bridge, once all accepts are gone, is not ours
    host.run("sysctl", "net.bridge.bridge-nf-call-iptables=0")
    for table in ("filter", "nat"):
        host.run(f"iptables-{variant}", "-t", table, "-F")
    assert site.attack() == [], "the policy is DROP"
    if variant == "nft":
        host.run("nft", "flush", "ruleset")
        assert "near to 127.0.0.1" not in site.attack()
    host.start_plugin({"DOCKER_FLANNEL_LOG_LEVEL": "debug"})
    wait_for(site.published, "the published port, once the plugin is back")
    assert site.attack() == []
    sent, back = received(ping)
    assert sent > 50
    assert back == sent, "a ping was lost on the bridge"
