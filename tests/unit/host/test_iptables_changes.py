"""The commands that lead from one set of iptables rules to another."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from driver.core import firewall
from driver.host.firewall.iptables_changes import (
    Commands,
    difference,
    fingerprint,
    is_whole,
    jump,
    leads,
    replacement,
)
from driver.host.firewall.iptables_rendering import (
    CHAIN_PREFIX,
    PARENTS,
    Tables,
    render,
)
from driver.model.firewall import PeerAddress
from driver.model.records import replace
from tests.unit.fakes import seeded
from tests.unit.iptables_sample import objects
from tests.unit.sample import DNS, END, WEB, endpoint


class Model:
    """What iptables-restore does with our commands."""

    def __init__(self, tables: Tables) -> None:
        self.tables = {t: {c: list(r) for c, r in chains.items()} for t, chains in tables.items()}

    def run(self, commands: Commands) -> None:
        for table, lines in commands.items():
            for line in lines:
                self._do(self.tables[table], line)

    @staticmethod
    def _do(chains: dict[str, list[str]], line: str) -> None:
        verb, _, rest = line.partition(" ")
        name, _, rule = rest.partition(" ")
        if verb.startswith(":"):
            chains[verb[1:]] = []
        elif verb == "-X":
            assert chains.pop(name) == [], "a chain with rules cannot be removed"
        elif verb == "-D":
            chains[name].remove(rule)
        elif verb == "-A":
            chains[name].append(rule)
        else:
            number, _, rule = rule.partition(" ")
            assert 0 < int(number) <= len(chains[name]) + 1
            chains[name].insert(int(number) - 1, rule)


@pytest.mark.parametrize("seed", range(20))
def test_the_difference_leads_from_any_rendering_to_any_other(seed: int) -> None:
    chance = seeded(seed)
    pool = [
        *objects(),
        *(
            item
            for number in range(40)
            for item in firewall.plan_ports(
                endpoint(END, ports=(replace(chance.choice((WEB, DNS)), host_port=number + 1),))
            )
        ),
        *(PeerAddress(IPv4Address(f"192.0.2.{n}")) for n in range(100, 120)),
    ]
    steps = [render(chance.sample(pool, chance.randrange(len(pool)))) for _ in range(10)]
    model = Model(steps[0])
    for old, new in pairwise(steps):
        commands = difference(old, new)
        model.run(commands)
        assert model.tables == new
        assert sum(map(len, commands.values())) <= sum(
            len(set(old[t][c]) ^ set(new[t][c])) for t in old for c in old[t]
        )


def test_no_difference_is_no_command() -> None:
    assert not any(difference(render(objects()), render(objects())).values())


BUILTIN: Tables = {
    "raw": {"PREROUTING": [], "OUTPUT": ["-j NOTRACK"]},
    "mangle": {"PREROUTING": [], "INPUT": [], "FORWARD": ["-j ACCEPT"], "POSTROUTING": []},
    "nat": {"PREROUTING": ["-j DOCKER"], "OUTPUT": [], "POSTROUTING": [], "DOCKER": []},
}


def test_a_replacement_makes_all_and_takes_all_away() -> None:
    wanted = render(objects())
    model = Model(BUILTIN)
    for _ in range(2):
        model.run(replacement(model.tables, wanted))
        found = fingerprint(model.tables)
        assert is_whole(found, wanted)
        assert {
            table: {c: r for c, r in chains.items() if c.startswith(CHAIN_PREFIX)}
            for table, chains in model.tables.items()
        } == wanted
    assert model.tables["nat"]["PREROUTING"] == [jump(f"{CHAIN_PREFIX}PRE"), "-j DOCKER"]
    model.tables["nat"][f"{CHAIN_PREFIX}OLD"] = [f"-j {CHAIN_PREFIX}OLDER"]
    model.tables["nat"][f"{CHAIN_PREFIX}OLDER"] = ["-j DROP"]
    model.tables["nat"]["DOCKER"] = [f"-s 10.9.9.9/32 -g {CHAIN_PREFIX}OLD"]
    for _ in range(2):
        model.run(replacement(model.tables, {}))
        assert model.tables == {**BUILTIN, "nat": {**BUILTIN["nat"], "DOCKER": []}}
    assert not any(replacement(model.tables, {}).values())


def test_a_lost_jump_or_rule_shows() -> None:
    wanted = render(objects())
    for table, parents in PARENTS.items():
        for parent, name in parents.items():
            for harm in ([], ["-j ACCEPT", jump(CHAIN_PREFIX + name)]):
                model = Model(BUILTIN)
                model.run(replacement(model.tables, wanted))
                whole = fingerprint(model.tables)
                model.tables[table][parent] = harm
                assert fingerprint(model.tables) != whole
                assert not is_whole(fingerprint(model.tables), wanted)
                model.run(replacement(model.tables, wanted))
                assert fingerprint(model.tables) == whole


@pytest.mark.parametrize(
    ("before", "reached"),
    [
        ([], True),
        (["-s 10.9.9.9/32 -j DROP"], True),
        (["-j LOG"], True),
        (["-j ACCEPT"], False),
        (['-m comment --comment "a b" -j RETURN'], False),
        (["-j REJECT --reject-with icmp-port-unreachable"], False),
    ],
)
def test_a_jump_behind_an_end_is_none(before: list[str], reached: bool) -> None:
    assert leads({"FORWARD": [*before, jump("X")]}, "FORWARD", "X") is reached
