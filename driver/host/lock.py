"""The lock that keeps a second instance off a state folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from driver.errors import Conflict, StoreError

MANAGED = "the managed plugin"


class Lock:
    """A lock on a folder, held until the process and its children that inherit it have ended."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._held = folder, -1

    def is_managed_plugins(self) -> bool:
        """Whether the managed plugin holds the lock."""
        try:
            with (self._folder / "lock").open() as file:
                if file.read(100).strip() == MANAGED:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def take(self) -> None:
        """Take the lock, unless it is held.

        Errors: StoreError when the folder cannot be used; Conflict when another instance has it.
        """
        if self._held >= 0:
            return
        folder = self._folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"state folder {folder} cannot be used: {error.strerror}; let root write there, "
                "with the systemd unit by ReadWritePaths=, or set another DOCKER_FLANNEL_STATE_DIR"
            ) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            who = os.read(held, 100).decode(errors="replace").strip() or "it does not say who it is"
            os.close(held)
            raise Conflict(
                f"another docker-flannel works on {folder}; stop it first ({who}), or set "
                "another DOCKER_FLANNEL_STATE_DIR"
            ) from None
        self._held, pid = held, os.getpid()
        os.ftruncate(held, 0)
        os.write(held, f"{MANAGED if pid == 1 else f'process {pid}'}\n".encode())
