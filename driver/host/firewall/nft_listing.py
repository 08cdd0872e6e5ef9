"""Reads libnftables' listing of the table: its constant part, and its entries. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from driver.host.firewall.nft_elements import LINK, SETS, Form, place
from driver.model.firewall import FirewallEntry, UnknownEntry
from driver.model.records import ANY

Body = dict[str, Any]
Skeleton = list[Body]


def skeleton(bodies: Iterable[Body]) -> Skeleton:
    """Return the listing without what changes while the table is in use."""
    return [{k: v for k, v in body.items() if k not in ("handle", "elem")} for body in bodies]


def entries(bodies: Iterable[Body]) -> list[FirewallEntry]:
    """Return the entries of all sets and maps, but for those that this version has no set for."""
    return [entry for body in bodies if body.get("name") in SETS for entry in _entries(body)]


def _entries(body: Body) -> Iterator[FirewallEntry]:
    """Read the elements of a set or map.

    Shape: {"name": …, "elem": [key | [key, data]]}; a key with a comment is
    {"elem": {"val": key, "comment": …}}, a key or data of several fields {"concat": [field, …]}.
    """
    name: str = body["name"]
    kind, key, data = SETS[name]
    forms, owned = [*key.items(), *data.items()], "owner" in kind.__slots__
    implied = {"host_ip": ANY} if name == "pub4_any" else {}
    for listed in body.get("elem", ()):
        at, to = listed if "map" in body else (listed, None)
        comment = ""
        if isinstance(at, dict) and "elem" in at:
            comment, at = at["elem"].get("comment", ""), at["elem"]["val"]
        values = _fields(at) + _fields(to) if data else _fields(at)
        try:
            fields = {n: form.read(value) for (n, form), value in zip(forms, values, strict=True)}
            entry = kind(**fields, **implied, **({"owner": comment} if owned else {}))
        except (LookupError, TypeError, ValueError):
            entry = None
        if entry is None or place(entry) != name:
            entry = UnknownEntry(name, " . ".join(map(_word, _fields(at), key.values())))
        yield entry


def _fields(listed: Any) -> list[Any]:
    return listed["concat"] if isinstance(listed, dict) and "concat" in listed else [listed]


def _word(value: Any, form: Form) -> str:
    """Write a field as it is listed, whatever it is."""
    match value:
        case {"range": [first, last]}:
            return f"{first}-{last}"
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
    return LINK.write(value) if form is LINK else str(value)
