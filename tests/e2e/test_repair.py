"""What others take away from the host comes back by itself, and what is theirs stays theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.bed import Host, Node, Snapshot, assert_no_leaks, diff, snapshot, wait_for
from tests.e2e.helpers import address, container, docker_major, inspect, network, pings, status, web
from tests.e2e.leaving import MAY_DIFFER, as_it_was

EVENT_S = 10  # what the kernel reports wakes a pass; the others come every half minute
OURS = "inet docker_flannel"


@pytest.fixture
def host(running: Host) -> Iterator[Host]:
    """Yield the running host; the test has to leave it as it was, but for dockerd."""
    with as_it_was(running) as given:
        yield given


@pytest.fixture
def site(host: Host, visitor: Node) -> Site:
    """Return a container with a published port, and a neighbour."""
    return Site(host, visitor)


class Site:
    """A network with a web server whose port is published, and another container."""

    def __init__(self, host: Host, visitor: Node) -> None:
        self.host, self.visitor = host, visitor
        self.view: Callable[[Snapshot], Snapshot] = lambda found: found
        block = network(host, "app")
        self.gateway = f"{block[1]}/{block.prefixlen}"
        self.bridge = f"fl-{inspect(host, 'network', 'app')['Id'][:12]}"
        web(host, "web", "app", "-p", "8080:80")
        container(host, "peer", "app")
        self.veth = f"flh{self.endpoint('web')[:12]}"
        wait_for(self.answers, "the port")
        self.whole = snapshot(host)

    def endpoint(self, name: str) -> str:
        settings = inspect(self.host, "container", name)["NetworkSettings"]
        return str(settings["Networks"]["app"]["EndpointID"])

    def answers(self) -> bool:
        """Whether the published port is reached from another machine, and from the host itself."""
        url = f"http://{self.host.address}:8080/"
        return self.visitor.reaches(url, 2) and self.host.reaches("http://127.0.0.1:8080/", 2)

    def repairs(self, since: float = 0) -> list[tuple[float, str]]:
        """When and what the plugin has repaired after a time, as its status tells."""
        told = [(entry["at"], entry["what"]) for entry in status(self.host)["repaired"]]
        return [(at, what) for at, what in told if at > since]

    def last_repair(self) -> float:
        return max((at for at, _ in self.repairs()), default=0)

    def differs(self) -> list[str]:
        """What is not as it was when all was whole."""
        return diff(self.whole, self.view(snapshot(self.host)), ignore=MAY_DIFFER)

    def heals(self, damage: Callable[[], object], what: str) -> None:
        """Do damage and wait until all is whole again; the status then says what was repaired."""
        before = self.last_repair()
        damage()
        assert self.differs() or self.repairs(before), "no damage was done"
        wait_for(lambda: not self.differs(), "the host to be as it was", EVENT_S)
        wait_for(self.answers, "the port after the repair", EVENT_S)
        assert pings(self.host, "peer", "web")
        self.tells(what, before)
        assert status(self.host)["problems"] == []

    def tells(self, what: str, since: float) -> None:
        """Wait until the status lists a repair."""
        wait_for(
            lambda: any(what in line for _, line in self.repairs(since)),
            f"the status to tell of {what}",
            EVENT_S,
        )


def ip_damage(site: Site) -> dict[str, tuple[str, str]]:
    """What to do with `ip`, and what the status then says."""
    return {
        "the gateway address": (f"addr del {site.gateway} dev {site.bridge}", "1 link address"),
        "the bridge down": (f"link set {site.bridge} down", "1 bridge"),
        "the lease's route": ("route del unreachable 10.2.0.0/20", "1 unreachable route"),
        "the port out of its bridge": (f"link set {site.veth} nomaster", "1 veth"),
        "the port down": (f"link set {site.veth} down", "1 veth"),
        "the bridge's MTU": (f"link set {site.bridge} mtu 1280", "1 bridge"),
        "the port's MTU": (f"link set {site.veth} mtu 1280", "1 veth"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "the gateway address",
        "the bridge down",
        "the lease's route",
        "the port out of its bridge",
        "the port down",
        "the bridge's MTU",
        "the port's MTU",
    ],
)
def test_links_and_routes_heal_at_once(site: Site, name: str) -> None:
    words, what = ip_damage(site)[name]
    site.heals(lambda: site.host.run("ip", *words.split()), what)


def test_the_bridge_itself_comes_back_with_its_ports(site: Site) -> None:
    site.heals(lambda: site.host.run("ip", "link", "del", site.bridge), "1 bridge")


FIREWALL = {
    "our table": (f"nft delete table {OURS}", "1 ruleset"),
    "our chains": (f"nft flush table {OURS}", "1 ruleset"),
    "a port": (f"nft delete element {OURS} pub4_any {{ tcp . 8080 }}", "1 port map"),
    "a foreign rule": (f"nft insert rule {OURS} forward drop", "1 ruleset"),
    "the gate's rules": ("iptables -F DKFLANNEL-FORWARD", "1 forward gate"),
    "the gate's jump": (
        "iptables -D DOCKER-USER -m comment --comment docker-flannel -j DKFLANNEL-FORWARD",
        "1 forward gate",
    ),
}


@pytest.mark.parametrize("name", FIREWALL)
def test_the_firewall_heals_at_once(site: Site, name: str) -> None:
    command, what = FIREWALL[name]
    site.heals(lambda: site.host.run(*command.split()), what)


@pytest.fixture
def other_dockerd(host: Host) -> Iterator[None]:
    """Have dockerd make its own rules again after a test that removes them."""
    yield
    host.restart_dockerd()
    host.run("iptables", "-P", "FORWARD", "DROP")  # dockerd does so when it turns forwarding on
    host.docker("run", "--rm", "-p", "7:7", "box", "true")  # for which Docker 28 has a table `raw`


@pytest.mark.each_backend
@pytest.mark.usefixtures("other_dockerd")
@pytest.mark.parametrize("command", ["nft flush ruleset", "iptables -F"])
def test_ours_heals_when_all_is_flushed(site: Site, command: str) -> None:
    site.view, site.whole = ours, ours(site.whole)
    site.heals(lambda: site.host.run(*command.split()), "1 forward gate")


def test_settings_heal_at_once(site: Site) -> None:
    """Of these the kernel tells nothing, and of the last what we need not follow otherwise."""
    routed = f"sysctl net.ipv4.conf.{site.bridge}.route_localnet=0"
    guard = f"tc qdisc del dev {site.bridge} clsact"
    forwarded = "sysctl net.ipv4.ip_forward=0"
    for damage, what in (
        (routed, "loopback guard"),
        (forwarded, "sysctl"),
        (guard, "loopback guard"),
    ):
        before = site.last_repair()
        site.host.run(*damage.split())
        site.tells(what, before)
        wait_for(site.answers, "the port to be reached again", EVENT_S)
    assert len(site.repairs(before)) == 1


def ours(found: Snapshot) -> Snapshot:
    """Leave out the firewall rules that are not ours, and where in FORWARD our gate hangs."""
    lines = found.lines.copy()
    for line in found.lines:
        kind = line.partition(":")[0]
        mine = "docker_flannel" in line or ("-A DKFLANNEL" in line and kind == "iptables")
        if kind in ("row", "plugin") or (kind in ("nft", "iptables") and not mine):
            del lines[line]
    return Snapshot(lines)


@pytest.mark.each_backend
def test_dockerd_makes_its_rules_anew(host: Host, visitor: Node) -> None:
    host.stop_dockerd()
    host.start_dockerd(live_restore=True)
    try:
        site = Site(host, visitor)
        host.stop_dockerd()
        before = site.last_repair()
        for chain in ("FORWARD", "DOCKER-USER", "DOCKER-ISOLATION-STAGE-1"):
            host.run("iptables", "-F", chain)
        site.tells("1 forward gate", before)
        host.restart_dockerd()
        rule = "-j DOCKER-FORWARD" if docker_major(host) >= 28 else "-i docker0"
        assert rule in host.run("iptables", "-S", "FORWARD").stdout, "Docker's rules"
        wait_for(site.answers, "the port", EVENT_S)
        assert pings(host, "web", "192.0.2.1")
        assert status(host)["problems"] == []
        host.docker("rm", "-f", "web", "peer")
        host.docker("network", "rm", "app")
    finally:
        host.stop_dockerd()
        host.start_dockerd()


def test_a_container_without_its_veth(site: Site) -> None:
    host, before = site.host, site.last_repair()
    host.run("ip", "link", "del", site.veth)
    site.tells(f"endpoint {site.veth[3:]} lost its veth with its sandbox: dropped", before)
    left = [e["address"].split("/")[0] for e in status(host)["endpoints"]]
    assert left == [address(host, "peer", "app")]
    assert not site.answers()
    assert inspect(host, "container", "web")["State"]["Running"]
    host.docker("restart", "web")
    wait_for(site.answers, "the port after a restart")
    assert pings(host, "peer", "web")
    host.run("ip", "link", "del", f"flh{site.endpoint('web')[:12]}")
    host.docker("rm", "-f", "web")
    web(host, "web", "app", "-p", "8080:80")
    wait_for(site.answers, "the port of a new container")
    assert status(host)["problems"] == []


FOREIGN = """
ip link add fl-foreign type bridge
ip link set fl-foreign up
ip addr add 198.51.100.1/24 dev fl-foreign
ip link add flhforeign type veth peer name flcforeign
ip link set flhforeign master fl-foreign up
ip route add unreachable 198.51.100.128/25 metric 91000
nft add table inet foreign
nft add chain inet foreign forward { type filter hook forward priority 5; }
nft add rule inet foreign forward tcp dport 99 drop
iptables -N FOREIGN-FORWARD
iptables -A FOREIGN-FORWARD -s 198.51.100.0/24 -j ACCEPT
iptables -A FORWARD -j FOREIGN-FORWARD
"""
UNDO = """
iptables -D FORWARD -j FOREIGN-FORWARD
iptables -F FOREIGN-FORWARD
iptables -X FOREIGN-FORWARD
nft delete table inet foreign
ip route del unreachable 198.51.100.128/25
ip link del flhforeign
ip link del fl-foreign
"""


def test_what_is_not_ours_stays(host: Host, visitor: Node) -> None:
    for line in FOREIGN.strip().splitlines():
        host.run(*line.split())
    before = snapshot(host)
    site = Site(host, visitor)
    site.heals(lambda: host.run("ip", "link", "set", site.bridge, "down"), "1 bridge")
    site.heals(lambda: host.run("nft", "delete", "table", *OURS.split()), "1 ruleset")
    host.kill_plugin()
    host.start_plugin()
    wait_for(site.answers, "the port after a new start")
    host.docker("rm", "-f", "web", "peer")
    host.docker("network", "rm", "app")
    assert_no_leaks(host, before, ignore=MAY_DIFFER)
    for line in UNDO.strip().splitlines():
        host.run(*line.split())
