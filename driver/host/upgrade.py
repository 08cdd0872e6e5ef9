"""A managed plugin's state outlives its upgrade, wherever it was told to keep it.

An upgrade sets the plugin's mounts back to their defaults, so the folder of the state may be
another one afterwards. What Docker keeps over it is the plugin's own folder (`propagatedMount`):
there a copy is put when the plugin ends, and taken from when it begins. Imports `store`.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from driver.errors import StoreError
from driver.host.journal import copy, restore

log = logging.getLogger(__name__)

FOLDER = Path("/host/kept")  # is mounted in a managed plugin


def put_by(state: Path, folder: Path = FOLDER) -> None:
    """Copy the state as the plugin ends; the copy's name says which folder it is of."""
    try:
        if folder.is_dir() and state.exists():
            copy(state, folder / _name(state.parent))
    except (StoreError, OSError) as error:
        log.warning("the state would not outlive a change of its folder: %s", error)


def bring_back(state: Path, folder: Path = FOLDER) -> None:
    """Take the copy if the state's folder is another one now, and has none or an older state.

    A copy is used once: what the administrator puts into a folder later is meant.
    """
    try:
        for kept in sorted(folder.glob("*.db"), key=lambda path: path.stat().st_mtime):
            elsewhere = kept.name != _name(state.parent)
            if not state.exists() or (elsewhere and _time(state) < _time(kept)):
                restore(kept, state)
                log.warning("the state is what the plugin had when it ended, in another folder")
            kept.unlink()
    except (StoreError, OSError) as error:
        log.warning("the state that the plugin had when it ended cannot be used: %s", error)


def _name(folder: Path) -> str:
    with suppress(OSError):
        found = folder.stat()
        return f"{found.st_dev}-{found.st_ino}.db"
    return "none.db"


def _time(path: Path) -> float:
    beside = Path(f"{path}-wal")
    return max(p.stat().st_mtime for p in (path, beside) if p.exists())
