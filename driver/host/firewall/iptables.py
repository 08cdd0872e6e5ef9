"""The firewall in iptables' chains, for a kernel without nf_tables.

Each table is changed in one transaction, a run of iptables-restore or a commit of python-iptables.
A container's ports are all in one table. A fingerprint, how the chains read right after we wrote
them, shows whether somebody changed them. If so, the next pass writes them anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from typing import ClassVar

from driver.errors import FlannelError, HostError
from driver.host.firewall import iptables_variants
from driver.host.firewall.conflicts import refuse_taken
from driver.host.firewall.iptables_changes import (
    Commands,
    difference,
    fingerprint,
    is_whole,
    replacement,
)
from driver.host.firewall.iptables_reading import read_back
from driver.host.firewall.iptables_rendering import CHAIN_PREFIX, PARENTS, PortRule, Tables, render
from driver.host.firewall.nft_generation import Generation
from driver.host.namespaces import in_scratch
from driver.model.firewall import FirewallEntry, PortMap, Ruleset
from driver.model.identity import Key
from driver.model.objects import HostObject, Plan

GONE = "our iptables chains are not as they were written: somebody changed or flushed them"
LOOK_S = 1.0  # between reads of legacy tables, 5 ms each: they report no changes


class IptablesFirewall:
    """The chains and their rules in one iptables variant, in the calling thread's namespace."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (Ruleset, FirewallEntry)

    def __init__(self, variant: str) -> None:
        self.name = f"iptables-{variant}"
        self._variant = variant
        self._lock = threading.Lock()  # a pass looks while a call changes
        self._ruleset = Generation()
        self._have: dict[Key, HostObject] = {}
        self._chains: Tables = {}  # `_have`, rendered
        self._known: dict[PortMap, PortRule] = {}
        self._written: Tables | None = None  # how the chains read when written; None: not known
        self._number = self._ruleset.number()
        self._seen: Tables = {}
        self._looked = 0.0

    def observe(self) -> frozenset[HostObject]:
        """Return what was written if it still reads as it did then, else what its rules show.

        Errors: HostError.
        """
        with self._lock:
            self._number = self._ruleset.number()  # before the list, to notice changes during it
            return frozenset(self._have.values()) if self._intact() else self._found()

    def apply(self, plan: Plan) -> None:
        """Carry out a plan; of each of iptables' tables all or nothing.

        Errors: an ExceptionGroup with one Conflict (a port is taken) or HostError.
        """
        try:
            with self._lock:
                self._apply(plan)
        except FlannelError as error:
            raise ExceptionGroup("firewall", [error]) from None

    def disturbed(self) -> bool:
        """Whether somebody else changed rules since they were last observed.

        Of legacy tables, only our chains and the jumps to them count.
        """
        if self._ruleset.number() != self._number:
            return True
        if self._variant == "nft" or self._written is None:
            return False
        with self._lock:
            if time.monotonic() < self._looked + LOOK_S:
                return False
            self._looked = time.monotonic()
            try:
                return fingerprint(self._read()) != self._seen
            except HostError:
                return False  # somebody holds the lock; a pass would fail, too

    def clear(self) -> None:
        """Remove all chains of ours, whoever made them. Errors: HostError."""
        with self._lock:
            self._replace({})

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Adopt the chains there if they read as the wanted ones do in a scratch namespace."""
        want = {item.key: item for item in objects if isinstance(item, self.kinds)}

        def written() -> Tables:
            with closing(IptablesFirewall(self._variant)) as other:
                other._replace(want)
                return other._written or {}

        with self._lock, suppress(HostError, OSError):  # then the chains are replaced
            if want and self._written is None and self._look() == (expected := in_scratch(written)):
                self._have, self._written = want, expected
                self._chains = render(want.values(), self._known)

    def close(self) -> None:
        """Close the socket; the chains stay."""
        self._ruleset.close()

    def _apply(self, plan: Plan) -> None:
        new = plan.new()
        if any(isinstance(item, Ruleset) for item in plan.remove):
            self._replace({})
        elif any(isinstance(item, Ruleset) for item in new) and not self._intact():
            touched = plan.touched()
            kept = [t for t in self._found() if t.key not in touched]
            self._replace({item.key: item for item in (*kept, *new)})
        elif self._have:
            for item in plan.add:
                refuse_taken(self._have.get(item.key), item)
            gone = plan.touched()
            want = {key: item for key, item in self._have.items() if key not in gone}
            self._change(want | {item.key: item for item in new}, adding=bool(new))
        elif new:
            raise HostError(GONE)

    def _replace(self, want: dict[Key, HostObject]) -> None:
        """Write the chains anew, whatever is there, or remove them."""
        chains = render(want.values(), self._known) if want else {}
        self._have, self._written, self._chains = {}, None, {}
        commands = replacement(self._read(), chains)
        if any(commands.values()):
            self._write(commands)
        self._settle(want, chains)

    def _change(self, want: dict[Key, HostObject], *, adding: bool) -> None:
        """Change some rules. If the chains are no longer ours, nothing is left to remove."""
        chains = render(want.values(), self._known)
        commands = difference(self._chains, chains)
        if not any(commands.values()):
            self._have = want
            return
        try:
            self._write(commands)
            self._settle(want, chains)
        except HostError:
            if self._intact():
                raise
            self._have, self._written = {}, None
            if adding:
                raise HostError(GONE) from None

    def _write(self, commands: Commands) -> None:
        """Change rules. Count only this as seen: each table raises the ruleset's number by one."""
        before = self._ruleset.number()
        iptables_variants.change(self._variant, commands)
        ours = sum(map(bool, commands.values())) if self._variant == "nft" else 0
        if before == self._number and self._ruleset.number() == before + ours:
            self._number = before + ours

    def _settle(self, want: dict[Key, HostObject], chains: Tables) -> None:
        """Read what was written, and remember it if all of it is there."""
        found = self._look()
        if chains and not is_whole(found, chains):
            raise HostError(GONE)
        self._have, self._written, self._chains = want, found if want else None, chains

    def _intact(self) -> bool:
        return self._written is not None and self._look() == self._written

    def _found(self) -> frozenset[HostObject]:
        """Return what was written to chains that have changed since, or what their rules show."""
        shown = read_back(self._look())
        written = frozenset(t for t in self._have.values() if isinstance(t, FirewallEntry))
        return frozenset((Ruleset(intact=False), *written)) if shown and written else shown

    def _look(self) -> Tables:
        self._seen = fingerprint(self._read())
        return self._seen

    def _read(self) -> Tables:
        return iptables_variants.read(self._variant, PARENTS, exact=CHAIN_PREFIX)
