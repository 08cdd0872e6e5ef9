"""The gate: two accept rules in Docker's FORWARD path, in either iptables. Imports `things`.

An accept in our nft table does not overrule a DROP policy that Docker set through iptables, so
the gate is written with the tool that Docker itself uses. "nft" is changed by its own programs;
"legacy" by python-iptables, which is imported only when legacy tables are live: to import and
use it makes them live, and that would change how packets pass on a host that has none.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from driver.errors import FlannelError, HostError
from driver.model import BRIDGE_PREFIX
from driver.things import Gate, Plan, Thing

if TYPE_CHECKING:
    import iptc

CHAIN = "DKFLANNEL-FORWARD"
USER = "DOCKER-USER"  # Docker leaves its contents alone, and looks there first
MARK = "docker-flannel"
RULES = [f"-i {BRIDGE_PREFIX}+ -j ACCEPT", f"-o {BRIDGE_PREFIX}+ -j ACCEPT"]
JUMP = f"-m comment --comment {MARK} -j {CHAIN}"

COMMENT = re.compile(r'-m comment --comment (?:"(?:[^"\\]|\\.)*"|\S+) ')
END = re.compile(r"-j (?:ACCEPT|DROP|REJECT|RETURN)\b")  # without a condition: nothing follows
OURS = re.compile(rf"-[jg] {CHAIN}$")

LEGACY_LIVE = Path("/proc/thread-self/net/ip_tables_names")
PATIENCE_S = 2.0

Chains = dict[str, list[str]]  # chain → rules as iptables-save writes them, without "-A CHAIN "


class Iptables:
    """The gates of the namespace of the calling thread."""

    kinds: ClassVar[tuple[type[Thing], ...]] = (Gate,)

    @staticmethod
    def variants() -> frozenset[str]:
        """Tell which iptables variants are in use, and make none so by asking."""
        found = set()
        if shutil.which("iptables-nft-restore"):
            found.add("nft")
        if LEGACY_LIVE.exists() and "filter" in LEGACY_LIVE.read_text().split():
            found.add("legacy")
        return frozenset(found)

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
    if variant == "legacy" and not present and variant not in Iptables.variants():
        return
    write = _write_legacy if variant == "legacy" else _write_nft
    for last in (False, True):
        chains = _read(variant)
        if _is_open(chains) if present else CHAIN not in chains:
            return
        try:
            write(present, chains)
        except HostError:
            if last:
                raise


def _read(variant: str) -> Chains:
    return _read_legacy() if variant == "legacy" else _read_nft()


def _is_open(chains: Chains) -> bool:
    """Tell whether forwarded packets come to our two rules."""
    return chains.get(CHAIN) == RULES and (
        _leads(chains, "FORWARD", CHAIN) or _leads(chains, _parent(chains), CHAIN)
    )


def _parent(chains: Chains) -> str:
    return USER if _leads(chains, "FORWARD", USER) else "FORWARD"


def _leads(chains: Chains, chain: str, target: str) -> bool:
    """Tell whether a chain hands every packet to a target, rather than ending before."""
    for rule in chains.get(chain, ()):
        plain = COMMENT.sub("", rule)
        if plain == f"-j {target}":
            return True
        if END.match(plain):
            return False
    return False


def _read_nft() -> Chains:
    chains: Chains = {}
    for line in _run(["iptables-nft-save", "-t", "filter"], "").splitlines():
        if line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            chains[chain].append(rule)
    return chains


def _write_nft(present: bool, chains: Chains) -> None:
    """Replace the gate, or remove it, in one transaction; to declare a chain empties it."""
    jumps = [f"-D {name} {r}" for name, rules in chains.items() for r in rules if OURS.search(r)]
    if present:
        rules = [f"-A {CHAIN} {rule}" for rule in RULES]
        lines = [f":{CHAIN} - [0:0]", *rules, *jumps, f"-I {_parent(chains)} 1 {JUMP}"]
    else:
        lines = [*jumps, f"-F {CHAIN}", f"-X {CHAIN}"]
    text = "\n".join(["*filter", *lines, "COMMIT", ""])
    _run(["iptables-nft-restore", "--noflush", "-w"], text)


def _run(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        reason = done.stderr.strip().partition("\n")[0] or f"exit code {done.returncode}"
        raise HostError(f"{command[0]} failed: {reason}")
    return done.stdout


def _read_legacy() -> Chains:
    with _legacy_filter() as table:
        return _chains(table)


def _write_legacy(present: bool, chains: Chains) -> None:
    """Replace the gate, or remove it, in one commit."""
    import iptc  # noqa: PLC0415  see the module's docstring

    with _legacy_filter() as table:
        for chain in table.chains:
            for rule in chain.rules:
                if rule.target.name == CHAIN:
                    chain.delete_rule(rule)
        if table.is_chain(CHAIN):
            iptc.Chain(table, CHAIN).flush()
        if present:
            gate = iptc.Chain(table, CHAIN) if table.is_chain(CHAIN) else table.create_chain(CHAIN)
            for side in ("in_interface", "out_interface"):
                rule = iptc.Rule()
                setattr(rule, side, f"{BRIDGE_PREFIX}+")
                rule.create_target("ACCEPT")
                gate.append_rule(rule)
            jump = iptc.Rule()
            jump.create_match("comment").comment = MARK
            jump.create_target(CHAIN)
            iptc.Chain(table, _parent(chains)).insert_rule(jump)
        elif table.is_chain(CHAIN):
            table.delete_chain(CHAIN)
        table.commit()


@contextmanager
def _legacy_filter() -> Iterator[iptc.Table]:
    """Give the table as it is now, under the lock that iptables itself takes.

    A commit writes the whole table, so somebody else's change in between would be lost.
    """
    import iptc  # noqa: PLC0415  see the module's docstring

    with _xtables_lock():
        table = None
        try:
            table = iptc.Table(iptc.Table.FILTER, autocommit=False)
            table.refresh()
            yield table
        except (iptc.IPTCError, iptc.XTablesError) as error:
            raise HostError(f"iptables-legacy refused: {error}") from error
        finally:
            if table is not None:
                table.close()


@contextmanager
def _xtables_lock() -> Iterator[None]:
    path = Path(os.environ.get("XTABLES_LOCKFILE", "/run/xtables.lock"))
    limit = time.monotonic() + PATIENCE_S
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise HostError(f"another program keeps the iptables lock {path}") from None
                time.sleep(0.02)
        yield


def _chains(table: iptc.Table) -> Chains:
    return {chain.name: [_spec(rule) for rule in chain.rules] for chain in table.chains}


def _spec(rule: iptc.Rule) -> str:
    """Write a rule as iptables-save would, as far as it takes to know our own and Docker's."""
    conditions = [
        (rule.src != "0.0.0.0/0.0.0.0", f"-s {rule.src}"),
        (rule.dst != "0.0.0.0/0.0.0.0", f"-d {rule.dst}"),
        (rule.in_interface, f"-i {rule.in_interface}"),
        (rule.out_interface, f"-o {rule.out_interface}"),
        (rule.protocol != "ip", f"-p {rule.protocol}"),
        *((match.name != "comment", f"-m {match.name}") for match in rule.matches),
    ]
    return " ".join([*(text for there, text in conditions if there), f"-j {rule.target.name}"])
