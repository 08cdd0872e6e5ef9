"""Keep a managed plugin's state over its upgrade, whatever folder was set for it.

An upgrade resets the plugin's mounts to their defaults, so the state may be in another folder
afterwards. Docker keeps the plugin's own folder (`propagatedMount`): the plugin puts a copy there
when it ends, and takes it from there when it begins.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from driver.errors import StoreError
from driver.host.journal import copy, restore

log = logging.getLogger(__name__)

FOLDER = Path("/host/kept")  # is mounted in a managed plugin


def save(state: Path, folder: Path = FOLDER) -> None:
    """Copy the state as the plugin ends; the copy is named after the state's folder."""
    try:
        if folder.is_dir() and state.exists():
            copy(state, folder / _name(state.parent))
    except (StoreError, OSError) as error:
        log.warning("the state would not outlive a change of its folder: %s", error)


def recover(state: Path, folder: Path = FOLDER) -> None:
    """Restore the copy where there is no state, or an older one in another folder than before.

    A copy is used once, so that a state which the administrator puts into a folder later stays.
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
