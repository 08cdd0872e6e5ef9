"""The nft table in the kernel, by libnftables in this process.

One context for the process' life: each run of the nft program would cost 2 ms, and 16 ms after a
removal, which the kernel makes a closing socket wait for. And one context in the process at a
time: the library has static buffers that all contexts share. Imports `generation`, `port_maps`
and `rules`.

Whether the table's constant part is still ours is told by a fingerprint: its listing, without
what changes by itself, right after we installed it, or after somebody installed it in a namespace
made for that. A table that reads otherwise is replaced by the first pass, in one transaction and
with all elements.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import groupby
from typing import Any, ClassVar

import nftables

from driver.core.firewall import TABLE, read_port
from driver.errors import Conflict, FlannelError, HostError
from driver.host.firewall import nft_listing
from driver.host.firewall.nft_elements import NftElements
from driver.host.firewall.nft_generation import Generation
from driver.host.namespaces import in_scratch
from driver.model.objects import Element, HostObject, Key, Plan, Table

PATH = f"inet {TABLE}"


class NftFirewall:
    """The table and its elements, in the network namespace of the moment it is made."""

    kinds: ClassVar[tuple[type[HostObject], ...]] = (Table, Element)

    def __init__(self) -> None:
        self.name = "nft"
        self._lock = threading.Lock()  # a pass looks while a call changes
        self._nft = nftables.Nftables()
        self._nft.set_stateless_output(True)
        self._nft.set_numeric_proto_output(True)
        self._installed: tuple[Table, nft_listing.Skeleton] | None = None
        self._maps = NftElements()
        self._ruleset = Generation()
        self._seen = 0

    def observe(self) -> frozenset[HostObject]:
        """List the table and its elements; one whose constant part is not as installed differs.

        Errors: HostError.
        """
        with self._lock:
            self._seen = self._ruleset.number()  # before the list: a change during it is news
            return self._look()

    def _look(self) -> frozenset[HostObject]:
        bodies = self._bodies(terse=False)
        if bodies is None:
            return frozenset()
        if self._installed is not None and nft_listing.skeleton(bodies) == self._installed[1]:
            return frozenset((self._installed[0], *nft_listing.all_elements(bodies)))
        return frozenset((Table(""), *nft_listing.readable(bodies)))

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
        """Take for ours a table that reads as the wanted one does in a namespace of its own."""

        def written(table: Table) -> nft_listing.Skeleton:
            with closing(NftFirewall()) as other:
                other._replace(table, ())
                return other._installed[1] if other._installed else []

        with self._lock, suppress(HostError, OSError):  # then the table is replaced
            for table in objects:
                if isinstance(table, Table) and self._installed is None:
                    self._installed = table, in_scratch(partial(written, table))

    def close(self) -> None:
        """Let go of libnftables and the socket; the table stays."""
        del self._nft
        self._maps.close()
        self._ruleset.close()

    def _apply(self, plan: Plan) -> None:
        elements = plan.only((Element,))
        table = next((t for t in _new(plan) if isinstance(t, Table)), None)
        if table is not None:
            have = self._look()
            if table not in have:
                touched = plan.touched()
                kept = (t for t in have if _has_set(table, t) and t.key not in touched)
                self._replace(table, [*kept, *_new(elements)])
                return
        elif any(isinstance(t, Table) for t in plan.remove):
            self._remove()
            return
        try:
            self._change(elements)
        except (HostError, OSError):
            self._run(_script(self._missing(elements)))

    def _change(self, plan: Plan) -> None:
        """Change elements, those of ports in the quick way: they come and go with containers."""
        gone, come = _old(plan), _new(plan)
        ports = [read_port(item) for item in (*gone, *come)]
        known = [port for port in ports if port is not None]
        if len(known) < len(ports):
            self._run(_script(plan))
            return
        with self._writing():
            self._maps.change(known[: len(gone)], known[len(gone) :])

    def _remove(self) -> None:
        try:
            with self._writing():
                self._maps.remove_table()
        except OSError as error:
            raise _refused(str(error)) from error
        self._installed = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Take a change of ours for seen, but no other: what came before it is news as before."""
        before = self._ruleset.number()
        yield
        if before == self._seen and self._ruleset.number() == before + 1:
            self._seen = before + 1

    def _replace(self, table: Table, elements: Iterable[HostObject]) -> None:
        self._run(
            [
                f"add table {PATH}",  # makes "delete" succeed where there is none
                f"delete table {PATH}",
                f"table {PATH} {{\n{table.text}\n}}",
                *_adding(elements),
            ]
        )
        bodies = self._bodies(terse=True)
        self._installed = None if bodies is None else (table, nft_listing.skeleton(bodies))

    def _missing(self, plan: Plan) -> Plan:
        """Give what of a refused plan is not so already."""
        listed = self._list()
        if listed is None and (plan.add or plan.change):
            raise HostError(f"the nftables table {PATH} is gone: somebody flushed the ruleset")
        have: dict[Key, Element] = {e.key: e for e in listed[1]} if listed else {}
        for item in plan.add:
            there = have.get(item.key)
            if there is not None and there.data and there != item:
                raise Conflict(
                    f"{there.at} in the nftables map {there.set} already leads to {there.data} "
                    f"for {there.owner[:12] or 'nobody'}"
                )
        new = _new(plan)
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

    def _list(self) -> tuple[nft_listing.Skeleton, list[Element]] | None:
        """Read the table's constant part and its elements; None if there is no table."""
        bodies = self._bodies(terse=False)
        if bodies is None:
            return None
        return nft_listing.skeleton(bodies), nft_listing.all_elements(bodies)

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


def _has_set(table: Table, item: HostObject) -> bool:
    return isinstance(item, Element) and f" {item.set} {{" in table.text


def _refused(message: str) -> HostError:
    line = message.partition("\n")[0].removeprefix("Error: ")
    return HostError(f"nftables refused: {line}")


def _new(plan: Plan) -> list[HostObject]:
    return [*plan.add, *(new for _, new in plan.change)]


def _old(plan: Plan) -> list[HostObject]:
    return [*plan.remove, *(old for old, _ in plan.change)]


def _script(plan: Plan) -> list[str]:
    gone = (item for item in _old(plan) if isinstance(item, Element))
    return [
        *(f"delete element {PATH} {e.set} {{ {e.at} }}" for e in gone),
        *_adding(_new(plan)),
    ]


def _adding(objects: Iterable[HostObject]) -> Iterator[str]:
    """Say the commands that make elements, one for all that follow each other in a set.

    A map's key must not be taken: "create" refuses it. In sets there is nothing to disagree on,
    and nft 1.0.6 refuses "create" in an interval set that is made in the same transaction.
    """
    elements = (item for item in objects if isinstance(item, Element))
    for (name, is_map), group in groupby(elements, lambda e: (e.set, bool(e.data))):
        verb = "create" if is_map else "add"
        yield f"{verb} element {PATH} {name} {{ {', '.join(map(_written, group))} }}"


def _written(element: Element) -> str:
    comment = f' comment "{element.owner}"' if element.owner else ""
    data = f" : {element.data}" if element.data else ""
    return element.at + comment + data
