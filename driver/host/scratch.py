"""A network namespace of its own, to try out there how something reads once it is written.

Imports nothing of ours. Source: unshare(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


def in_scratch(act: Callable[[], Result]) -> Result:
    """Do something in a new network namespace, which ends with it; some ms.

    Errors: OSError where there may be no new one, and those of `act`.
    """

    def work() -> Result:
        if _libc.unshare(_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return act()

    with ThreadPoolExecutor(1, "scratch") as thread:  # it ends, and with it the namespace
        return thread.submit(work).result()
