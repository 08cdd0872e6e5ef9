"""The gate in both iptables, with and without Docker's chain."""

import subprocess

import pytest

from driver.errors import HostError
from driver.host.firewall.forward_gate import ForwardGates
from driver.host.firewall.iptables_variants import variants
from driver.model.firewall import ForwardGate
from driver.model.objects import Plan
from driver.model.records import replace
from tests.kernel.firewalls import legacy_tables
from tests.unit.contract import check_adapter

pytestmark = pytest.mark.kernel

VARIANTS = ["nft", "legacy"]


class Tables:
    """One variant as an administrator and Docker see it."""

    def __init__(self, host, variant):
        self.host = host
        self.variant = variant
        self.gate = ForwardGate(variant)
        self.add, self.remove = Plan(add=(self.gate,)), Plan(remove=(self.gate,))
        if variant == "legacy":
            self("-L")  # makes it live

    def __call__(self, *arguments):
        self.host.run(f"iptables-{self.variant}", "-w", *arguments)

    def docker(self):
        """Set up what Docker does."""
        self("-N", "DOCKER-USER")
        self("-A", "DOCKER-USER", "-j", "RETURN")
        self("-I", "FORWARD", "-j", "DOCKER-USER")
        self("-P", "FORWARD", "DROP")

    def rules(self):
        text = self.host.run(f"iptables-{self.variant}-save", "-t", "filter")
        return [line for line in text.splitlines() if line.startswith(("-A", ":"))]


@pytest.fixture(params=VARIANTS)
def tables(request, host):
    return Tables(host, request.param)


@pytest.fixture
def gates():
    return ForwardGates()


JUMP = "-m comment --comment docker-flannel -j DKFLANNEL-FORWARD"
CHAIN = "-A DKFLANNEL-FORWARD"
OWN = [
    f"{CHAIN} -i fl-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    f"{CHAIN} -o fl-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    f"{CHAIN} -i fl-+ -m mark --mark 0x2000000/0x2000000 -j ACCEPT",
    f"{CHAIN} -o fl-+ -m mark --mark 0x2000000/0x2000000 -j ACCEPT",
    f"{CHAIN} -i fl-+ -j DROP",
    f"{CHAIN} -o fl-+ -j DROP",
]
BRIDGED = f"{CHAIN} -i fl-+ -m physdev --physdev-is-bridged -j ACCEPT"
BEFORE = [f"{CHAIN} -i fl-+ -j ACCEPT", f"{CHAIN} -o fl-+ -j ACCEPT"]  # until issue 10


def position(tables, rule):
    chain = rule.split()[1]
    return [r for r in tables.rules() if r.startswith(f"-A {chain} ")].index(rule)


def test_the_contract(gates, host):
    both = Tables(host, "nft").gate, Tables(host, "legacy").gate
    check_adapter(gates, both, (both[0], replace(both[0], bridged=True)))


def test_without_docker_the_gate_is_first_in_forward(tables, gates):
    tables("-A", "FORWARD", "-s", "10.9.9.9", "-j", "DROP")
    before = tables.rules()
    assert gates.observe() == frozenset()
    gates.apply(tables.add)
    assert gates.observe() == {tables.gate}
    assert position(tables, f"-A FORWARD {JUMP}") == 0
    assert [r for r in tables.rules() if r.startswith("-A DKFLANNEL")] == OWN
    gates.apply(tables.remove)
    assert gates.observe() == frozenset()
    assert [r.split(" [")[0] for r in tables.rules()] == [r.split(" [")[0] for r in before]
    gates.apply(tables.remove)


def test_with_docker_the_gate_is_first_in_its_chain_for_users(tables, gates):
    tables.docker()
    before = tables.rules()
    gates.apply(tables.add)
    assert gates.observe() == {tables.gate}
    assert position(tables, f"-A DOCKER-USER {JUMP}") == 0
    assert not any(r.startswith("-A FORWARD") and "DKFLANNEL" in r for r in tables.rules())
    gates.apply(tables.remove)
    assert tables.rules() == before


def test_a_second_apply_changes_nothing(tables, gates):
    tables.docker()
    gates.apply(tables.add)
    before = tables.rules()
    gates.apply(tables.add)
    assert tables.rules() == before


@pytest.mark.parametrize(
    "command",
    [
        "-F DKFLANNEL-FORWARD",
        "-D DKFLANNEL-FORWARD 1",
        "-I DKFLANNEL-FORWARD -s 10.9.9.9 -j DROP",
        "-R DKFLANNEL-FORWARD 3 -i fl-+ -m mark --mark 0x1/0x1 -j ACCEPT",
        "-D DOCKER-USER 1",
        "-F DOCKER-USER",
        "-I DOCKER-USER -j RETURN",
        "-D FORWARD -j DOCKER-USER",
        "-I FORWARD -j ACCEPT",
        "-F",
    ],
)
def test_a_broken_gate_is_seen_and_mended(tables, gates, command):
    tables.docker()
    gates.apply(tables.add)
    tables(*command.split())
    assert gates.observe() == frozenset()
    gates.apply(tables.add)
    assert gates.observe() == {tables.gate}
    assert sum("-j DKFLANNEL-FORWARD" in rule for rule in tables.rules()) == 1


@pytest.mark.parametrize(
    "command",
    [
        "-I DOCKER-USER -s 10.9.9.9 -j DROP",
        "-I FORWARD -i eth9 -j ACCEPT",
        "-A FORWARD -j REJECT",
        "-A FORWARD -m comment --comment 'a\"b' -p tcp --dport 9 -j LOG",
    ],
)
def test_other_rules_do_not_matter(tables, gates, command):
    tables.docker()
    gates.apply(tables.add)
    tables(*command.split())
    assert gates.observe() == {tables.gate}


def test_the_gate_follows_docker_that_comes_later(tables, gates):
    gates.apply(tables.add)
    tables.docker()
    assert gates.observe() == frozenset()
    gates.apply(tables.add)
    assert gates.observe() == {tables.gate}
    assert position(tables, f"-A DOCKER-USER {JUMP}") == 0
    assert not any(r.startswith("-A FORWARD") and "DKFLANNEL" in r for r in tables.rules())


def test_a_chain_of_dockers_that_nothing_leads_to_is_no_place(tables, gates):
    tables("-N", "DOCKER-USER")
    gates.apply(tables.add)
    assert position(tables, f"-A FORWARD {JUMP}") == 0
    assert gates.observe() == {tables.gate}


def test_a_gate_of_an_earlier_version_is_replaced(tables, gates):
    tables.docker()
    tables("-N", "DKFLANNEL-FORWARD")
    for rule in BEFORE:
        tables(*rule.split())
    tables("-I", "DOCKER-USER", *JUMP.split())
    assert gates.observe() == frozenset()
    gates.apply(tables.add)
    assert gates.observe() == {tables.gate}
    assert [r for r in tables.rules() if r.startswith(CHAIN)] == OWN
    assert sum("-j DKFLANNEL-FORWARD" in rule for rule in tables.rules()) == 1


def test_frames_within_a_bridge_pass_where_they_come_by(tables, gates):
    gates.apply(tables.add)
    bridged = replace(tables.gate, bridged=True)
    gates.apply(Plan(change=((tables.gate, bridged),)))
    assert gates.observe() == {bridged}
    assert [r for r in tables.rules() if r.startswith(CHAIN)] == [BRIDGED, *OWN]


def test_looking_makes_no_legacy_table(gates, host):
    assert variants() == {"nft"}
    assert gates.observe() == frozenset()
    gates.apply(Plan(remove=(ForwardGate("legacy"), ForwardGate("nft"))))
    gates.apply(Plan(add=(ForwardGate("nft"),)))
    assert gates.observe() == {ForwardGate("nft")}
    assert legacy_tables(host) == []


def test_looking_makes_no_nft_table(gates, host):
    gates.observe()
    assert host.run("nft", "list", "ruleset") == ""


def test_both_variants_at_once(gates, host):
    legacy = Tables(host, "legacy")
    assert variants() == {"nft", "legacy"}
    gates.apply(Plan(add=(ForwardGate("nft"), legacy.gate)))
    assert gates.observe() == {ForwardGate("nft"), ForwardGate("legacy")}
    gates.apply(Plan(remove=(ForwardGate("nft"),)))
    assert gates.observe() == {ForwardGate("legacy")}


def test_a_refusal_is_told_in_one_line(gates, host):
    """A base chain where ours should be: no tool of iptables can work with that."""
    base = "{ type filter hook input priority 5; }"
    host.run("nft", f"add table ip filter; add chain ip filter DKFLANNEL-FORWARD {base}")
    with pytest.raises(ExceptionGroup) as caught:
        gates.apply(Plan(add=(ForwardGate("nft"),)))
    [error] = caught.value.exceptions
    assert type(error) is HostError
    assert "iptables-nft" in str(error)
    assert "\n" not in str(error)


def test_the_lock_of_iptables_is_respected(gates, host):
    """Somebody holds it while the gate is wanted: the gate waits."""
    tables = Tables(host, "legacy")
    with subprocess.Popen(
        ["flock", "/run/xtables.lock", "sh", "-c", "echo; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(ExceptionGroup) as caught:
            gates.apply(tables.add)
        assert "xtables.lock" in str(caught.value.exceptions[0])
        holder.communicate(b"\n")
    gates.apply(tables.add)
    assert gates.observe() == {tables.gate}
