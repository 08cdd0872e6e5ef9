"""Refuses a published port that another endpoint has."""

from __future__ import annotations

from driver.errors import Conflict
from driver.model.firewall import PortMap
from driver.model.objects import HostObject
from driver.model.records import short


def refuse_taken(there: HostObject | None, wanted: HostObject) -> None:
    """Refuse a host port that is `there` already for something else. Errors: Conflict."""
    if isinstance(there, PortMap) and there != wanted:
        raise Conflict(
            f"{there} already leads to {there.target}:{there.target_port} for "
            f"{short(there.owner) or 'nobody'}"
        )
