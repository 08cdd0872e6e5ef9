"""Reads nft's listing of the table: its constant part, and its elements. Pure.

Imports `rules` and `objects`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from driver.core.firewall import read_port
from driver.model.objects import Element

# asked for as numbers: names need /etc/protocols, which container images lack
PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}

Skeleton = list[dict[str, Any]]


def skeleton(bodies: Iterable[dict[str, Any]]) -> Skeleton:
    """Leave out what changes while the table is in use."""
    return [{k: v for k, v in body.items() if k not in ("handle", "elem")} for body in bodies]


def all_elements(bodies: Iterable[dict[str, Any]]) -> list[Element]:
    """Read the elements of all sets and maps."""
    return [element for body in bodies for element in elements(body)]


def readable(bodies: Iterable[dict[str, Any]]) -> Iterator[Element]:
    """Read what can be of a table that is not as installed; its sets may be another version's."""
    for body in bodies:
        with suppress(AttributeError, LookupError, TypeError, ValueError):
            found = list(elements(body))
            for element in found:
                read_port(element)
            yield from found


def elements(body: dict[str, Any]) -> Iterator[Element]:
    """Read the elements of a set or map.

    Shape: {"name": …, "type": TYPE, "map": TYPE, "elem": [key | [key, data]]}; TYPE is "ifname",
    ["ipv4_addr", "inet_service"], or before 1.1 for maps "ipv4_addr . inet_service", and since then
    for a typeof {"typeof": {"meta": …}} or {"typeof": {"payload": …}}; a key with a comment is
    {"elem": {"val": key, "comment": …}}.
    """
    types = _types(body.get("type", ""))
    for entry in body.get("elem", ()):
        key, data = entry if "map" in body else (entry, None)
        comment = ""
        if isinstance(key, dict) and "elem" in key:
            comment, key = key["elem"].get("comment", ""), key["elem"]["val"]
        value = _spell(data, _types(body["map"])) if data is not None else ""
        yield Element(body["name"], _spell(key, types), value, comment)


def _types(kind: str | list[str] | dict[str, Any]) -> list[str]:
    if isinstance(kind, dict):  # those of `rules`: a link's name or an address
        return ["ifname" if "meta" in kind["typeof"] else "ipv4_addr"]
    return kind if isinstance(kind, list) else kind.split(" . ")


def _spell(value: Any, types: list[str]) -> str:
    """Write a value from a listing as `rules` does. Every field's type is needed to do so."""
    fields = value["concat"] if isinstance(value, dict) and "concat" in value else [value]
    return " . ".join(_field(*pair) for pair in zip(fields, types, strict=True))


def _field(value: Any, kind: str) -> str:
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if isinstance(value, dict) and "range" in value:
        return "-".join(value["range"])
    if kind == "ifname":
        return f'"{value}"'
    return PROTOCOLS.get(value, str(value)) if kind == "inet_proto" else str(value)
