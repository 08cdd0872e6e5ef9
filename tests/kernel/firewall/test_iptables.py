"""The fallback in both iptables: what others do to its chains is seen and mended."""

import dataclasses
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from driver.errors import HostError
from driver.host.firewall import iptables_variants
from driver.host.firewall.iptables import IptablesFirewall
from driver.host.firewall.iptables_rendering import render
from driver.model.firewall import (
    BridgePair,
    DirectLink,
    ForeignBridge,
    InternalBridge,
    Masquerade,
    OverlayPrefix,
    PeerAddress,
    PortMap,
    SourcePrefix,
)
from driver.model.objects import Plan, diff
from driver.model.records import ANY
from tests.kernel.firewalls import legacy_tables
from tests.kernel.sample import LAN, ONE, TABLE, WANTED

pytestmark = pytest.mark.kernel

TOLD = (BridgePair, InternalBridge, SourcePrefix, Masquerade, OverlayPrefix, PortMap)


class Variant:
    """One iptables as an administrator has it."""

    def __init__(self, host, name):
        self.host, self.name = host, name

    def __call__(self, words):
        self.host.run(f"iptables-{self.name}", "-w", *words.split())

    def saved(self, table):
        text = self.host.run(f"iptables-{self.name}-save", "-t", table)
        return [line for line in text.splitlines() if line.startswith("-A")]


@pytest.fixture(params=["nft", "legacy"])
def iptables(request, host):
    return Variant(host, request.param)


@pytest.fixture
def fallback(iptables):
    with closing(IptablesFirewall(iptables.name)) as made:
        made.apply(diff(made.observe(), WANTED))
        yield made


JUMP = "-m comment --comment docker-flannel -j DKFLANNEL-"
DAMAGE = {
    "all flushed": ("-t nat -F",),
    "a chain flushed": ("-t mangle -F DKFLANNEL-IN",),
    "a port's rule": ("-t nat -D DKFLANNEL-TCP 1",),
    "an own rule": ("-t raw -D DKFLANNEL-GUARD 2",),
    "a rule replaced": ("-t nat -R DKFLANNEL-LEAVE 1 -d 10.2.0.0/16 -j ACCEPT",),
    "another place for a port, noted as before": (
        "-t nat -R DKFLANNEL-UDP 2 -p udp -m udp --dport 8053 -m comment --comment 111111111111 "
        "-j DNAT --to-destination 10.2.0.3:53",
    ),
    "another place for a port": (
        "-t nat -R DKFLANNEL-UDP 2 -p udp -m udp --dport 8053 -j DNAT --to-destination 10.9.9.9",
    ),
    "a foreign rule first": ("-t mangle -I DKFLANNEL-FORWARD -j ACCEPT",),
    "a foreign rule last": ("-t nat -A DKFLANNEL-POST -s 10.9.9.9 -j ACCEPT",),
    "a foreign chain": ("-t raw -N DKFLANNEL-OTHER",),
    "a condition less": ("-t nat -R DKFLANNEL-LEAVE 3 -j MASQUERADE --random-fully",),
    "another chain": ("-t nat -R DKFLANNEL-PUBLISH 1 -p tcp -j DKFLANNEL-UDP",),
    "a jump with a condition": (
        f"-t nat -D OUTPUT {JUMP}OUTPUT",
        f"-t nat -A OUTPUT -d 10.9.9.9 {JUMP}OUTPUT",
    ),
    "a jump": (f"-t mangle -D FORWARD {JUMP}FORWARD",),
    "another jump": (f"-t nat -D OUTPUT {JUMP}OUTPUT",),
    "the jumps of a hook": ("-t raw -F PREROUTING",),
    "an accept before": ("-t mangle -I FORWARD -j ACCEPT",),
    "jumps and chain": (f"-t raw -D PREROUTING {JUMP}GUARD", "-t raw -F", "-t raw -X"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_seen_and_mended(fallback, iptables, name):
    before = {table: iptables.saved(table) for table in ("raw", "mangle", "nat")}
    for command in DAMAGE[name]:
        iptables(command)
    assert TABLE not in fallback.observe()
    fallback.apply(diff(fallback.observe(), WANTED))
    assert fallback.observe() == WANTED
    if name == "an accept before":
        jump = before["mangle"].index(f"-A FORWARD {JUMP}FORWARD")
        before["mangle"].insert(jump + 1, "-A FORWARD -j ACCEPT")
    assert {table: iptables.saved(table) for table in before} == before


@pytest.mark.parametrize(
    "command",
    [
        "-t nat -I PREROUTING -s 10.9.9.9 -j ACCEPT",
        "-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
        "-t nat -N FOREIGN",
        "-A FORWARD -j DROP",
        "-t nat -Z",
    ],
)
def test_rules_of_others_are_no_drift(fallback, iptables, command):
    iptables(command)
    assert fallback.observe() == WANTED


def test_a_port_that_comes_finds_the_drift(fallback, iptables):
    iptables("-t nat -F DKFLANNEL-TCP")
    new = PortMap("tcp", ANY, 9, IPv4Address("10.2.0.3"), 1, "3" * 64)
    with pytest.raises(ExceptionGroup) as caught:
        fallback.apply(Plan(add=(new,)))
    [error] = caught.value.exceptions
    assert type(error) is HostError
    fallback.apply(diff(fallback.observe(), WANTED | {new}))
    assert fallback.observe() == WANTED | {new}


def test_chains_of_an_earlier_process_are_replaced(fallback, iptables):
    iptables("-t nat -A DKFLANNEL-TCP -p tcp --dport 77 -j ACCEPT")
    iptables("-t nat -N DKFLANNEL-OLD")
    iptables("-t nat -A DKFLANNEL-OLD -j ACCEPT")
    iptables("-t nat -A DKFLANNEL-PUBLISH -j DKFLANNEL-OLD")
    good = WANTED - {ONE}
    with closing(IptablesFirewall(iptables.name)) as later:
        assert TABLE not in later.observe()
        told = {t.key for t in WANTED if isinstance(t, TOLD)}
        assert told <= {t.key for t in later.observe()}, "what runs is seen before any change"
        later.apply(diff(later.observe(), good))
        assert later.observe() == good
    assert TABLE not in fallback.observe()
    assert not any("DKFLANNEL-OLD" in line or "77" in line for line in iptables.saved("nat"))


@pytest.mark.usefixtures("fallback")
def test_what_another_backend_left_is_cleared(iptables, nft, host):
    nft.apply(diff(nft.observe(), WANTED))
    iptables("-t nat -A POSTROUTING -s 10.9.9.9 -j ACCEPT")
    with closing(IptablesFirewall(iptables.name)) as other:
        other.clear()
        other.clear()
    assert iptables.saved("raw") == iptables.saved("mangle") == []
    assert iptables.saved("nat") == ["-A POSTROUTING -s 10.9.9.9/32 -j ACCEPT"]
    assert nft.observe() == WANTED
    nft.clear()
    nft.clear()
    assert "docker_flannel" not in host.run("nft", "list", "tables")


def test_clearing_makes_no_tables(host):
    for name in ("nft", "legacy"):
        with closing(IptablesFirewall(name)) as made:
            made.clear()
    assert host.run("nft", "list", "ruleset") == ""
    assert legacy_tables(host) == []


def test_a_change_of_one_port_leaves_the_others_rules(fallback, iptables):
    """Rules that stay are not written again: their counters go on."""
    many = [
        PortMap("tcp", ANY, port, IPv4Address("10.2.0.3"), 1, "3" * 64)
        for port in (2, 3000, 9000, 65535)
    ]
    for order in (many, many[::-1]):
        for port in order:
            fallback.apply(Plan(add=(port,)))
        rules = [r for r in iptables.saved("nat") if r.startswith("-A DKFLANNEL-TCP")]
        numbers = [int(rule.split("--dport ")[1].split()[0]) for rule in rules]
        assert numbers == [8081, 8082, 2, 3000, 8080, 9000, 65535]
        assert fallback.observe() == WANTED | set(many)
        for port in order:
            moved = dataclasses.replace(port, target=IPv4Address("10.2.0.2"), target_port=9)
            fallback.apply(Plan(change=((port, moved),)))
            fallback.apply(Plan(remove=(moved,)))
        assert fallback.observe() == WANTED


def test_a_transaction_is_carried_out_whole_or_not_at_all(fallback, iptables):
    before = iptables.saved("nat")
    good = "-p tcp -m tcp --dport 1 -j DNAT --to-destination 10.2.0.3:1"
    for bad in (
        "-A DKFLANNEL-ABSENT -j ACCEPT",
        "-A DKFLANNEL-TCP -j DKFLANNEL-ABSENT",
        f"-D DKFLANNEL-TCP {good.replace('10.2.0.3', '10.2.0.4')}",
        "-X DKFLANNEL-TCP",
    ):
        with pytest.raises(HostError) as caught:
            iptables_variants.change(iptables.name, {"nat": [f"-A DKFLANNEL-TCP {good}", bad]})
        assert "\n" not in str(caught.value)
        assert iptables.saved("nat") == before
    assert fallback.observe() == WANTED


def test_a_rendering_says_what_the_kernel_then_has(fallback, iptables):
    """Both variants end with the rules that iptables' own programs would write."""
    extra = {DirectLink("eth0"), PeerAddress(IPv4Address(LAN)), ForeignBridge("docker0")}
    fallback.apply(Plan(add=tuple(extra)))
    for table, chains in render(WANTED | extra).items():
        saved = iptables.saved(table)
        for chain, rules in chains.items():
            own = f"-A {chain} "
            assert [r.removeprefix(own) for r in saved if r.startswith(own)] == rules
