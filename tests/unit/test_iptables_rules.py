"""The iptables rules of the fallback, and the commands from one rendering to another."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from driver import rules
from driver.errors import HostError
from driver.iptables_rules import (
    CHAIN_PREFIX,
    PARENTS,
    SETS,
    Commands,
    Tables,
    difference,
    fingerprint,
    is_whole,
    jump,
    leads,
    render,
    replacement,
)
from driver.model import External, Facts, replace
from driver.things import Element, Thing
from tests.unit.fakes import seeded
from tests.unit.sample import (
    DNS,
    END,
    END2,
    LEASE,
    NET,
    OTHER,
    OVERLAY,
    PEER,
    WEB,
    endpoint,
    network,
)

BRIDGE, INNER = f"fl-{NET[:12]}", f"fl-{OTHER[:12]}"
DIRECT = replace(OVERLAY, backend="host-gw")
FACTS = Facts(
    uplinks=frozenset({"br-lan"}),
    foreign=frozenset({"docker0"}),
    firewall="iptables-nft",
    external=External("eth0", IPv4Address("192.0.2.1"), 1500),
)


def things() -> list[Thing]:
    return [
        *rules.plan_base(LEASE, DIRECT, FACTS),
        *rules.plan_peer_rules(DIRECT, [PEER]),
        *rules.plan_network_rules(network()),
        *rules.plan_network_rules(network(OTHER, internal=True)),
        *rules.plan_ports(endpoint(END2, ports=(WEB, DNS))),
    ]


def chain(name: str, given: list[Thing]) -> list[str]:
    [found] = [c[CHAIN_PREFIX + name] for c in render(given).values() if CHAIN_PREFIX + name in c]
    return found


def test_every_set_of_the_table_has_rules() -> None:
    named = set(re.findall(r"^(?:set|map) (\w+)", rules.TABLE_TEXT, re.M))
    assert named == SETS - {"foreign"} | {"pub4_any", "pub4_ip"}


def test_without_elements_all_chains_are_there() -> None:
    empty = render([])
    assert empty.keys() == PARENTS.keys()
    for table, parents in PARENTS.items():
        assert {CHAIN_PREFIX + name for name in parents.values()} <= empty[table].keys()
        named = {n for found in empty[table].values() for r in found for n in targets(r)}
        assert named <= empty[table].keys(), "a rule leads nowhere"
    assert {table: chains.keys() for table, chains in render(things()).items()} == {
        table: chains.keys() for table, chains in empty.items()
    }


def targets(rule: str) -> list[str]:
    return re.findall(rf"-[jg] ({CHAIN_PREFIX}\w+)$", rule)


def test_names_fit() -> None:
    assert all(len(name) <= 28 for chains in render([]).values() for name in chains)


def test_a_port_is_a_rule_and_one_of_an_address_goes_first() -> None:
    assert chain("TCP", things()) == [
        "-p tcp -m tcp --dport 8080 -m comment --comment dddddddddddd "
        "-j DNAT --to-destination 10.2.3.2:80"
    ]
    assert chain("UDP", things()) == [
        "-d 192.168.1.5/32 -p udp -m udp --dport 53 -m comment --comment dddddddddddd "
        "-j DNAT --to-destination 10.2.3.2:5353"
    ]
    everywhere = replace(DNS, host_ip=IPv4Address(0), host_port=1)
    both = chain("UDP", [*rules.plan_ports(endpoint(END, ports=(everywhere, DNS)))])
    assert [rule.partition(" ")[0] for rule in both] == ["-d", "-p"]


def test_only_one_address_translates_127() -> None:
    """What comes for 127.0.0.0/8 from elsewhere is no business of the ports."""
    assert chain("PRE", [])[0] == "-d 127.0.0.0/8 -j RETURN"
    assert not any("127" in rule for rule in chain("OUTPUT", []))


def test_what_may_be_forwarded() -> None:
    assert chain("BETWEEN", things()) == [
        f"-i {BRIDGE} -o {BRIDGE} -j RETURN",
        f"-i {INNER} -o {INNER} -j RETURN",
        f"-i {INNER} -j DROP",
        f"-o {INNER} -j DROP",
        "-m conntrack --ctstate DNAT -j RETURN",
        "-j DROP",
    ]
    assert chain("OUT", things()) == [
        "-o flannel+ -j RETURN",
        "-m conntrack --ctstate INVALID -j DROP",
        "-d 10.2.0.0/16 -o eth0 -j RETURN",
        f"-i {INNER} -j DROP",
        "-m conntrack --ctstate DNAT -j RETURN",
        "-o docker0 -j DROP",
    ]
    assert chain("IN", things()) == [
        "-i flannel+ -j RETURN",
        "-s 10.2.0.0/16 -i eth0 -j RETURN",
        f"-o {INNER} -j DROP",
        f"-i eth0 -g {CHAIN_PREFIX}PEERS",
        "-m conntrack --ctstate DNAT -j RETURN",
        "-j DROP",
    ]
    assert chain("PEERS", things())[0] == "-s 192.0.2.12/32 -j RETURN"


def test_a_bridge_that_leads_out_may_be_left_by() -> None:
    assert "-o docker0 -j DROP" not in chain("OUT", [*things(), Element("uplinks", '"docker0"')])


def test_who_is_masqueraded() -> None:
    assert chain("HAIR", things()) == [f"-s 10.2.3.0/27 -o {BRIDGE} -j MASQUERADE"]
    assert chain("LEAVE", things()) == [
        "-d 10.2.0.0/16 -j RETURN",
        "-d 224.0.0.0/4 -j RETURN",
        "-s 10.2.3.0/27 -j MASQUERADE --random-fully",
    ]
    assert chain("ENTER", things()) == [
        "-s 10.2.0.0/16 -j RETURN",
        "-d 10.2.0.0/16 -j MASQUERADE --random-fully",
    ]


def test_a_subnet_of_docker_s_is_masqueraded_even_to_other_hosts() -> None:
    assert chain("DOCKER", [Element("docker4", "172.18.0.0/16")]) == [
        "-d 224.0.0.0/4 -j RETURN",
        "-s 172.18.0.0/16 -j MASQUERADE --random-fully",
    ]
    post = chain("POST", [])
    assert post.index("-j DKFLANNEL-DOCKER") < post.index("-j DKFLANNEL-LEAVE")


def test_nft_needs_no_names_of_bridges() -> None:
    planned = rules.plan_base(LEASE, None, replace(FACTS, firewall="nft"))
    assert not any(isinstance(t, Element) and t.set == "foreign" for t in planned)


@pytest.mark.parametrize(
    "bad",
    [
        Element("nothing", "10.2.0.0/16"),
        Element("over4", "10.2.0.1/16"),
        Element("over4", "eth0"),
        Element("direct", '"eth0 -j ACCEPT"'),
        Element("direct", '"eth0\nCOMMIT"'),
        Element("direct", '""'),
        Element("direct", '"sixteencharacter"'),
        Element("pair", '"fl-a" . fl-b'),
        Element("pub4_any", "tcp . http", "10.2.0.2 . 80"),
        Element("pub4_any", "tcp . 65536", "10.2.0.2 . 80"),
        Element("pub4_any", "tcp . 0", "10.2.0.2 . 80"),
        Element("pub4_any", "tcp . 80", "10.2.0.2 . 70000"),
        Element("pub4_any", "icmp . 80", "10.2.0.2 . 80"),
        Element("pub4_any", "tcp . 80", "here . 80"),
        Element("pub4_any", "tcp . 80", "10.2.0.2 . 80", owner="a b"),
        Element("pub4_ip", "tcp . 80", "10.2.0.2 . 80 . 90"),
    ],
)
def test_nonsense_is_refused(bad: Element) -> None:
    with pytest.raises(HostError) as caught:
        render([bad])
    assert "iptables" in str(caught.value)


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
        *things(),
        *(
            thing
            for number in range(40)
            for thing in rules.plan_ports(
                endpoint(END, ports=(replace(chance.choice((WEB, DNS)), host_port=number + 1),))
            )
        ),
        *(Element("peers4", f"192.0.2.{n}") for n in range(100, 120)),
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
    assert not any(difference(render(things()), render(things())).values())


BUILTIN: Tables = {
    "raw": {"PREROUTING": [], "OUTPUT": ["-j NOTRACK"]},
    "mangle": {"FORWARD": ["-j ACCEPT"]},
    "nat": {"PREROUTING": ["-j DOCKER"], "OUTPUT": [], "POSTROUTING": [], "DOCKER": []},
}


def test_a_replacement_makes_all_and_takes_all_away() -> None:
    wanted = render(things())
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
    wanted = render(things())
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
