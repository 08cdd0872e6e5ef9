"""JSON documents, decoded as flannel's Go code decodes them. Pure."""

from __future__ import annotations

import json
from typing import Any

from driver.errors import BadRecord

MOST_QUOTED = 80


def read_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Return a JSON object with its names in lower case, since flannel ignores their case.

    Errors: BadRecord, which calls the document `what`.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        found = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{what} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadRecord(f"{what} is not a JSON object: {quoted(found)}")
    return {name.lower(): value for name, value in found.items()}


def quoted(value: object) -> str:
    """Return a value as JSON for a message, cut to a length."""
    text = json.dumps(value)
    return text if len(text) <= MOST_QUOTED else text[:MOST_QUOTED] + "..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
