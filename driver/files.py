"""Reads files that somebody else may have put in place, and never waits for one.

Imports nothing of ours.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST = 1 << 20  # bytes; all that the plugin reads is text of a few lines


def read_file(path: Path) -> bytes:
    """Return what is in a regular file, also through a symbolic link.

    A FIFO would be waited for without end, a device may do something when it is opened: what is
    there is looked at first, without opening it.
    Errors: OSError; its `strerror` says what is wrong.
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        opened = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
    with os.fdopen(opened, "rb") as file:
        text = file.read(LARGEST + 1) or b""
    if len(text) > LARGEST:
        raise OSError(errno.EFBIG, f"it has more than {LARGEST} bytes")
    return text
