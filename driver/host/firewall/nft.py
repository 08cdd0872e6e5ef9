"""The nft table in the kernel, by libnftables in this process.

One context lives as long as the process: each run of the nft program would cost 2 ms, and 16 ms
after a removal, for which the kernel lets a closing socket wait. The process has one context at a
time: all contexts share the library's static buffers.

A fingerprint shows whether the table's constant part is still ours: its listing, without what
changes by itself, right after we installed it, here or in a scratch namespace. The first pass
replaces a table that reads otherwise, in one transaction and with all elements.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from ctypes import CDLL
from itertools import groupby
from typing import Any, ClassVar

import nftables

from driver.errors import FlannelError, HostError
from driver.host.firewall import nft_elements, nft_listing
from driver.host.firewall.conflicts import refuse_taken
from driver.host.firewall.nft_generation import Generation
from driver.host.firewall.nft_port_maps import NftPortMaps
from driver.host.firewall.nft_table import TABLE, TEXT
from driver.host.namespaces import in_scratch
from driver.model.firewall import FirewallEntry, PortMap, Ruleset, UnknownEntry
from driver.model.identity import Key
from driver.model.objects import HostObject, Plan

PATH = f"inet {TABLE}"
LIBRARY = "libnftables.so.1"


class NftFirewall:
    """The table and its elements, in the network namespace of the moment it is made."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (Ruleset, FirewallEntry)

    def __init__(self) -> None:
        """Errors: OSError without libnftables."""
        self.name = "nft"
        self._lock = threading.Lock()  # a pass looks while a call changes
        CDLL(LIBRARY)  # without it, Nftables fails too, and once more in its own __del__
        self._nft = nftables.Nftables(LIBRARY)
        self._nft.set_stateless_output(True)
        self._nft.set_numeric_proto_output(True)  # names need /etc/protocols, which images lack
        self._installed: nft_listing.Skeleton | None = None  # how it reads if it is intact
        self._maps = NftPortMaps()
        self._ruleset = Generation()
        self._seen = 0

    def observe(self) -> frozenset[HostObject]:
        """List the constant rules, intact or not, and the entries. Errors: HostError."""
        with self._lock:
            self._seen = self._ruleset.number()  # before the list, to notice changes during it
            return self._look()

    def _look(self) -> frozenset[HostObject]:
        bodies = self._bodies(terse=False)
        if bodies is None:
            return frozenset()
        intact = self._installed is not None and nft_listing.skeleton(bodies) == self._installed
        return frozenset((Ruleset(intact), *nft_listing.entries(bodies)))

    def apply(self, plan: Plan) -> None:
        """Carry out a plan in one transaction, all or nothing.

        Errors: an ExceptionGroup with one Conflict (an element is taken) or HostError.
        """
        try:
            with self._lock:
                self._apply(plan)
        except FlannelError as error:
            raise ExceptionGroup("firewall", [error]) from None

    def clear(self) -> None:
        """Remove the table, whoever made it. Errors: HostError."""
        with self._lock:
            self._remove()

    def resume(self, objects: Iterable[HostObject]) -> None:
        """Adopt the table there if it reads as one installed in a scratch namespace."""

        def written() -> nft_listing.Skeleton | None:
            with closing(NftFirewall()) as other:
                other._replace(())
                return other._installed

        with self._lock, suppress(HostError, OSError):  # then the table is replaced
            if self._installed is None and any(isinstance(t, Ruleset) for t in objects):
                self._installed = in_scratch(written)

    def close(self) -> None:
        """Close libnftables' context and the sockets; the table stays."""
        del self._nft
        self._maps.close()
        self._ruleset.close()

    def _apply(self, plan: Plan) -> None:
        entries = plan.only((FirewallEntry,))
        if any(isinstance(t, Ruleset) for t in plan.new()):
            have = self._look()
            if Ruleset() not in have:
                self._renew(have, entries)
                return
        elif any(isinstance(t, Ruleset) for t in plan.remove):
            self._remove()
            return
        try:
            self._change(entries)
        except (HostError, OSError):
            self._retry(self._missing(entries))

    def _retry(self, left: Plan) -> None:
        try:
            self._run(_script(left))
        except HostError:
            if not left.remove:
                raise
            # somebody put in a name that nft cannot write, such as one with a quote
            self._renew(self._look(), left)

    def _renew(self, have: Iterable[HostObject], plan: Plan) -> None:
        """Replace the table; it keeps what it has and the plan does not touch."""
        touched = plan.touched()
        strange = Ruleset | UnknownEntry
        kept = (t for t in have if t.key not in touched and not isinstance(t, strange))
        self._replace([*kept, *plan.new()])

    def _change(self, plan: Plan) -> None:
        """Change entries; the quick way if all are port maps, which come and go with containers."""
        gone, come = plan.old(), plan.new()
        old = [item for item in gone if isinstance(item, PortMap)]
        new = [item for item in come if isinstance(item, PortMap)]
        if len(old) + len(new) < len(gone) + len(come):
            self._run(_script(plan))
            return
        with self._writing():
            self._maps.change(old, new)

    def _remove(self) -> None:
        try:
            with self._writing():
                self._maps.remove_table()
        except OSError as error:
            raise _refused(str(error)) from error
        self._installed = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Count a change of ours as seen, but none that others made before it."""
        before = self._ruleset.number()
        yield
        if before == self._seen and self._ruleset.number() == before + 1:
            self._seen = before + 1

    def _replace(self, entries: Iterable[HostObject]) -> None:
        self._run(
            [
                f"add table {PATH}",  # makes "delete" succeed where there is none
                f"delete table {PATH}",
                f"table {PATH} {{\n{TEXT}\n}}",
                *_adding(entries),
            ]
        )
        bodies = self._bodies(terse=True)
        self._installed = None if bodies is None else nft_listing.skeleton(bodies)

    def _missing(self, plan: Plan) -> Plan:
        """Return what is left to do of a refused plan. Errors: Conflict, HostError."""
        bodies = self._bodies(terse=False)
        if bodies is None and (plan.add or plan.change):
            raise HostError(f"the nftables table {PATH} is gone: somebody flushed the ruleset")
        have: dict[Key, HostObject] = {t.key: t for t in nft_listing.entries(bodies or ())}
        for item in plan.add:
            refuse_taken(have.get(item.key), item)
        new = plan.new()
        return Plan(
            add=tuple(t for t in new if t.key not in have),
            change=tuple((have[t.key], t) for t in new if have.get(t.key, t) != t),
            remove=tuple(t for t in plan.remove if t.key in have),
        )

    def disturbed(self) -> bool:
        """Whether somebody else changed the ruleset since it was last observed."""
        return self._ruleset.number() != self._seen

    def _run(self, commands: list[str]) -> None:
        with self._writing():
            code, _, message = self._nft.cmd("\n".join(commands))
        if code:
            raise _refused(message)

    def _bodies(self, *, terse: bool) -> list[dict[str, Any]] | None:
        """Read what is in the table, if `terse` without elements; None if there is no table."""
        self._nft.set_json_output(True)
        self._nft.set_terse_output(terse)
        try:
            code, answer, message = self._nft.cmd(f"list table {PATH}")
            objects = json.loads(answer)["nftables"] if not code else []
        except ValueError:
            return []  # libnftables 1.0.6 prints stray memory for a table's flags: not ours
        finally:
            self._nft.set_json_output(False)
        if code and "No such file" in message:
            return None
        if code:
            raise _refused(message)
        return [body for entry in objects for kind, body in entry.items() if kind != "metainfo"]


def _refused(message: str) -> HostError:
    line = message.partition("\n")[0].removeprefix("Error: ")
    return HostError(f"nftables refused: {line}")


def _script(plan: Plan) -> list[str]:
    gone = (item for item in plan.old() if isinstance(item, FirewallEntry))
    return [
        *(
            f"delete element {PATH} {nft_elements.place(item)} {{ {nft_elements.key(item)} }}"
            for item in gone
        ),
        *_adding(plan.new()),
    ]


def _adding(objects: Iterable[HostObject]) -> Iterator[str]:
    """Yield the commands that make elements, one for all that follow each other in a set.

    In maps "create" refuses a key that is taken. In sets there is nothing to disagree on,
    and nft 1.0.6 refuses "create" in an interval set that is made in the same transaction.
    """
    entries = (item for item in objects if isinstance(item, FirewallEntry))
    for place, group in groupby(entries, nft_elements.place):
        verb = "create" if nft_elements.SETS[place].data else "add"
        yield f"{verb} element {PATH} {place} {{ {', '.join(map(nft_elements.element, group))} }}"
