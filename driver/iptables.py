"""The gate: two accept rules in Docker's FORWARD path, in either iptables. Imports `xtables`.

An accept in our own tables does not overrule a DROP policy that Docker set through iptables, so
the gate is written with the tool that Docker itself uses.
"""

from __future__ import annotations

from typing import ClassVar

from driver import xtables
from driver.errors import FlannelError, HostError
from driver.iptables_rules import CHAIN_PREFIX, Chains, jump, leads, unjump
from driver.model import BRIDGE_PREFIX
from driver.things import Gate, Plan, Thing
from driver.xtables import FILTER

CHAIN = f"{CHAIN_PREFIX}FORWARD"
USER = "DOCKER-USER"  # Docker leaves its contents alone, and looks there first
RULES = [f"-i {BRIDGE_PREFIX}+ -j ACCEPT", f"-o {BRIDGE_PREFIX}+ -j ACCEPT"]


class Iptables:
    """The gates of the namespace of the calling thread."""

    kinds: ClassVar[tuple[type[Thing], ...]] = (Gate,)

    @staticmethod
    def variants() -> frozenset[str]:
        """Tell which iptables variants are in use, and make none so by asking."""
        return xtables.variants()

    def observe(self) -> frozenset[Thing]:
        """List the gates that let packets through.

        Errors: HostError.
        """
        return frozenset(Gate(v) for v in self.variants() if _is_open(_read(v)))

    def apply(self, plan: Plan) -> None:
        """Remove and make gates.

        Errors: an ExceptionGroup of HostError.
        """
        errors: list[FlannelError] = []
        wanted = [*((gate, False) for gate in plan.remove), *((gate, True) for gate in plan.add)]
        for gate, present in wanted:
            if isinstance(gate, Gate):
                try:
                    _settle(gate.variant, present)
                except HostError as error:
                    errors.append(error)
        if errors:
            raise ExceptionGroup("iptables", errors)

    def close(self) -> None:
        """Do nothing: each call stands alone."""


def _settle(variant: str, present: bool) -> None:
    """Make or remove one gate; once more if its chains changed under our hands."""
    for last in (False, True):
        chains = _read(variant)
        if _is_open(chains) if present else CHAIN not in chains:
            return
        try:
            xtables.change(variant, {FILTER: _commands(present, chains)})
        except HostError:
            if last:
                raise


def _read(variant: str) -> Chains:
    return xtables.read(variant, [FILTER])[FILTER]


def _is_open(chains: Chains) -> bool:
    """Tell whether forwarded packets come to our two rules, from where they should.

    Docker takes its jump to DOCKER-USER away and makes it again whenever it has made a network; a
    gate made in that moment moves back.
    """
    return chains.get(CHAIN) == RULES and leads(chains, _parent(chains), CHAIN)


def _parent(chains: Chains) -> str:
    return USER if leads(chains, "FORWARD", USER) else "FORWARD"


def _commands(present: bool, chains: Chains) -> list[str]:
    """Replace the gate, or remove it, in one transaction; to declare a chain empties it."""
    removals = [*unjump(chains, CHAIN), f":{CHAIN} - [0:0]"]
    if not present:
        return [*removals, f"-X {CHAIN}"]
    rules = [f"-A {CHAIN} {rule}" for rule in RULES]
    return [*removals, *rules, f"-I {_parent(chains)} 1 {jump(CHAIN)}"]
