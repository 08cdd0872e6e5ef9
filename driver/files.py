"""Reads files that somebody else may have written, and replaces files atomically."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


def text_of(path: Path) -> str:
    """Return the text of a file, "" if it cannot be read."""
    try:
        return read_file(path).decode(errors="surrogateescape")
    except OSError:
        return ""


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Write or replace a file, as in `replacement`. Errors: OSError; nothing has changed then."""
    with replacement(path, content, mode):
        pass


@contextmanager
def replacement(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """Write a file beside `path`; at the end of the block it takes that place, atomically.

    Yields the new file, which is removed if the block ends with an error. It has mode and owner of
    the file that it replaces, and `mode` if there is none. A symbolic link stays: its target is
    replaced. Errors: OSError.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            _like(handle, path, mode)
            os.fsync(handle)
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _like(handle: int, path: Path, mode: int) -> None:
    """Set a new file's mode and owner to those of the old one, or its mode to `mode`."""
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(handle, mode)
        return
    os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode))
