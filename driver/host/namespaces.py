"""Runs a function in another network namespace, in a thread of its own.

pyroute2's `netns.setns` is no faster (0.2 ms, as here), starts ldconfig to find the C library, and
drops the kernel's reason. Python's `os.setns` comes with 3.12. Source: setns(2), unshare(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


def in_scratch(act: Callable[[], Result]) -> Result:
    """Run a function in a new network namespace, which ends with it; takes some ms.

    Errors: OSError where none may be made, and those of `act`.
    """
    return _apart(lambda: _must(_libc.unshare(_NEWNET)), act)


def in_sandbox(path: str, act: Callable[[], Result]) -> Result:
    """Run a function in the network namespace of a file. Errors: OSError, and those of `act`."""

    def enter() -> None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except ValueError as error:  # no file can have this name
            raise OSError(errno.EINVAL, str(error)) from error
        try:
            _must(_libc.setns(file, _NEWNET))
        finally:
            os.close(file)

    return _apart(enter, act)


def _apart(enter: Callable[[], None], act: Callable[[], Result]) -> Result:
    done = Future[Result]()

    def work() -> None:
        try:
            enter()
            done.set_result(act())
        except BaseException as error:  # noqa: BLE001  for the caller
            done.set_exception(error)

    thread = threading.Thread(target=work, name="namespace")
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    thread.join()  # a new namespace ends with its thread
    return done.result()


def _must(failed: int) -> None:
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
