"""Read files that somebody else may have written, without ever blocking."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST = 1 << 20  # bytes; the plugin reads only texts of a few lines


def read_file(path: Path) -> bytes:
    """Return the content of a regular file, also through a symbolic link.

    The kind of file is checked before it is opened: a FIFO would block forever, and opening a
    device may have effects. Errors: OSError; its `strerror` says what is wrong.
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
