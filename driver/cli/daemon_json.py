"""The lines for Docker's daemon.json, and how they are merged into its text. Pure.

They are default options for networks of this driver. With IPv4 off, Docker assigns no address, and
the driver assigns one of the lease.
"""

from __future__ import annotations

import json
from typing import Any

from driver.errors import BadRequest, Conflict

DRIVER = "flannel"
OPTIONS = "default-network-opts"
IPV4 = "com.docker.network.enable_ipv4"
SINCE = 28  # the first Docker in which the option turns IPv4 off
LINES = {OPTIONS: {DRIVER: {IPV4: "false"}}}


def show(settings: dict[str, Any]) -> str:
    """Return settings as the text of a daemon.json."""
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def merge(text: str) -> str | None:
    """Return the text of a daemon.json with the setting added; None if it has it already.

    An empty text is a file without settings, as for dockerd. All other settings stay.
    Errors: BadRequest if it is no JSON object, Conflict if it has the option with another value.
    Source: moby, daemon/config, getConflictFreeConfiguration.
    """
    settings = _read(text)
    options = _object(settings, OPTIONS, "")
    ours = _object(options, DRIVER, f"{OPTIONS}.")
    if IPV4 not in ours:
        ours[IPV4] = "false"
        return show(settings)
    if ours[IPV4] != "false":
        raise Conflict(
            f"{OPTIONS}.{DRIVER} has {IPV4} {json.dumps(ours[IPV4])} already, which is not "
            '"false": change it by hand if that is no longer wanted'
        )
    return None


def _read(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        settings = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"it is no JSON ({error}); correct it first") from None
    if not isinstance(settings, dict):
        raise BadRequest("it is no JSON object like {}; correct it first")
    return settings


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a duplicate key, since writing the file again would lose one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{json.dumps(twice)} is there twice")
    return found


def _object(settings: dict[str, Any], name: str, above: str) -> dict[str, Any]:
    found = settings.setdefault(name, {})
    if not isinstance(found, dict):
        raise Conflict(f"{above}{name} is {json.dumps(found)[:80]}, not a JSON object like {{}}")
    return found
