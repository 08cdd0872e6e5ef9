"""Waiting for a condition instead of sleeping for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class WaitError(AssertionError):
    """A condition did not come true in time; the message names it."""


def wait_for(
    condition: Callable[[], T], what: str, limit_s: float = 60, every_s: float = 0.05
) -> T:
    """Call `condition` until it returns something true, and return that.

    `what` completes "waited N s for ..."; `every_s` is the pause between two calls in seconds.
    Exceptions of the condition pass through. Raises WaitError after `limit_s` seconds.
    """
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise WaitError(f"waited {limit_s:g} s for {what}; the last answer was {value!r}")
        time.sleep(every_s)
