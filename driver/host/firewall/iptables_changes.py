"""The commands that change iptables rules, and fingerprints of the result. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from driver.host.firewall.iptables_rendering import CHAIN_PREFIX, MARK, PARENTS, Chains, Tables

Commands = dict[str, list[str]]  # table → commands of iptables-restore

_COMMENT = re.compile(r'-m comment --comment (?:"(?:[^"\\]|\\.)*"|\S+) ')
_END = re.compile(r"-j (?:ACCEPT|DROP|REJECT|RETURN)\b")  # without a condition: nothing follows


def difference(old: Tables, new: Tables) -> Commands:
    """Return the commands from one rendering to another; rules that stay keep their order."""
    return {
        table: [
            line for chain in chains for line in _steps(chain, old[table][chain], chains[chain])
        ]
        for table, chains in new.items()
    }


def _steps(chain: str, old: list[str], new: list[str]) -> Iterator[str]:
    if old == new:
        return
    before, after = set(old), set(new)
    yield from (f"-D {chain} {rule}" for rule in old if rule not in after)
    length = sum(rule in after for rule in old)
    for place, rule in enumerate(new):
        if rule not in before:
            yield f"-A {chain} {rule}" if place == length else f"-I {chain} {place + 1} {rule}"
            length += 1


def replacement(found: Tables, new: Tables) -> Commands:
    """Return the commands that replace whatever is there by a rendering.

    Declaring a chain empties it. Shape: `found` as read; `new` {} for none at all.
    """
    commands: Commands = {}
    for table, chains in found.items():
        wanted = new.get(table, {})
        there = [name for name in chains if name.startswith(CHAIN_PREFIX)]
        commands[table] = [
            *unjump(chains, rf"{CHAIN_PREFIX}\S+"),
            *(f":{name} - [0:0]" for name in dict.fromkeys([*there, *wanted])),
            *(f"-A {name} {rule}" for name, rules in wanted.items() for rule in rules),
            *(f"-X {name}" for name in there if name not in wanted),
        ]
        if wanted:
            commands[table] += [
                f"-I {parent} 1 {jump(CHAIN_PREFIX + name)}"
                for parent, name in PARENTS[table].items()
            ]
    return commands


def fingerprint(found: Tables) -> Tables:
    """Return what is ours in tables as read: our chains, and of others' what leads to them."""
    return {
        table: {name: rules for name, rules in chains.items() if name.startswith(CHAIN_PREFIX)}
        | {
            parent: [name]
            for parent, name in PARENTS[table].items()
            if leads(chains, parent, CHAIN_PREFIX + name)
        }
        for table, chains in found.items()
    }


def is_whole(print_: Tables, chains: Tables) -> bool:
    """Whether a fingerprint has as many rules as a rendering, which the kernel spells otherwise."""
    return all(
        {name: len(rules) for name, rules in print_.get(table, {}).items()}
        == {name: len(rules) for name, rules in wanted.items()} | dict.fromkeys(PARENTS[table], 1)
        for table, wanted in chains.items()
    )


def leads(chains: Chains, chain: str, target: str) -> bool:
    """Whether a chain hands every packet to a target."""
    for rule in chains.get(chain, ()):
        plain = _COMMENT.sub("", rule)
        if plain == f"-j {target}":
            return True
        if _END.match(plain):
            return False
    return False


def jump(target: str) -> str:
    """Return the rule by which somebody else's chain hands every packet to one of ours."""
    return f"-m comment --comment {MARK} -j {target}"


def unjump(chains: Chains, target: str) -> Iterator[str]:
    """Yield the commands that remove jumps from others' chains to chains that match `target`."""
    leading = re.compile(rf"-[jg] {target}$")
    for name, rules in chains.items():
        if not name.startswith(CHAIN_PREFIX):
            yield from (f"-D {name} {rule}" for rule in rules if leading.search(rule))
