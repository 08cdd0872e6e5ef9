"""The forward gate: rules in Docker's FORWARD path, in either iptables.

An accept in our own tables does not overrule a DROP policy that Docker set through iptables, so
the gate is written with the tool that Docker itself uses. Our tables come first: they drop what
must not pass, and mark the rest. Without them nothing is marked: the gate lets open connections go
on and no new ones begin.
"""

from __future__ import annotations

from typing import ClassVar

from driver.errors import FlannelError, HostError
from driver.host.firewall import iptables_variants
from driver.host.firewall.iptables_changes import jump, leads, unjump
from driver.host.firewall.iptables_legacy import FILTER
from driver.host.firewall.iptables_rendering import CHAIN_PREFIX, IS_JUDGED, OURS, Chains
from driver.model.firewall import ForwardGate
from driver.model.objects import HostObject, Plan

CHAIN = f"{CHAIN_PREFIX}FORWARD"
USER = "DOCKER-USER"  # Docker jumps there first, and leaves its contents alone
# "physdev" makes the kernel load br_netfilter, so it is used only where that is at work.
WITHIN_BRIDGE = f"-i {OURS} -m physdev --physdev-is-bridged -j ACCEPT"
RULES = [
    f"-{side} {OURS} {rule}"
    for rule in (
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"{IS_JUDGED} -j ACCEPT",
        "-j DROP",
    )
    for side in "io"
]


class ForwardGates:
    """The gates of the namespace of the calling thread."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (ForwardGate,)

    def observe(self) -> frozenset[HostObject]:
        """List the gates that are as they should be, with or without bridged frames.

        Errors: HostError.
        """
        there = {variant: _read(variant) for variant in iptables_variants.variants()}
        gates = (ForwardGate(variant, bridged) for variant in there for bridged in (False, True))
        return frozenset(gate for gate in gates if _in_place(gate, there[gate.variant]))

    def apply(self, plan: Plan) -> None:
        """Remove and make gates. Errors: an ExceptionGroup of HostError."""
        errors: list[FlannelError] = []
        wanted = [*((gate, False) for gate in plan.remove), *((gate, True) for gate in plan.new())]
        for gate, present in wanted:
            if isinstance(gate, ForwardGate):
                try:
                    _settle(gate, present)
                except HostError as error:
                    errors.append(error)
        if errors:
            raise ExceptionGroup("iptables", errors)

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _settle(gate: ForwardGate, present: bool) -> None:
    """Make or remove one gate. Try again if somebody changed its chains meanwhile."""
    for last in (False, True):
        chains = _read(gate.variant)
        if _in_place(gate, chains) if present else CHAIN not in chains:
            return
        try:
            iptables_variants.change(gate.variant, {FILTER: _commands(gate, present, chains)})
        except HostError:
            if last:
                raise


def _read(variant: str) -> Chains:
    return iptables_variants.read(variant, [FILTER])[FILTER]


def _rules(gate: ForwardGate) -> list[str]:
    return [WITHIN_BRIDGE, *RULES] if gate.bridged else RULES


def _in_place(gate: ForwardGate, chains: Chains) -> bool:
    """Whether the gate has its rules, and the right chain leads to it.

    Docker removes its jump to DOCKER-USER and makes it anew whenever it makes a network. A gate
    made in between is in FORWARD; it moves back later.
    """
    return chains.get(CHAIN) == _rules(gate) and leads(chains, _parent(chains), CHAIN)


def _parent(chains: Chains) -> str:
    return USER if leads(chains, "FORWARD", USER) else "FORWARD"


def _commands(gate: ForwardGate, present: bool, chains: Chains) -> list[str]:
    """Return commands that replace or remove the gate; declaring a chain empties it."""
    removals = [*unjump(chains, CHAIN), f":{CHAIN} - [0:0]"]
    if not present:
        return [*removals, f"-X {CHAIN}"]
    rules = [f"-A {CHAIN} {rule}" for rule in _rules(gate)]
    return [*removals, *rules, f"-I {_parent(chains)} 1 {jump(CHAIN)}"]
