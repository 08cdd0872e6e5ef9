"""Leave a managed plugin only the folders that it needs of the host's `/run` and `/var/lib`.

Docker refuses to mount what does not exist, so those two are mounted whole. Before anything else
runs, the folders that are needed are created and bound, and the rest, such as Docker's socket, is
detached for good. Source: mount(2).
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from driver.errors import HostError

log = logging.getLogger(__name__)

MANAGED = Path("/host/proc/sys/net")  # is mounted in a managed plugin
WHOLE = (Path("/run"), Path("/var/lib"))
LOCK = Path("/run/xtables.lock")
OWN = Path("/run/docker/plugins")  # where Docker looks for this plugin's own socket
SANDBOXES = ("docker/netns", "*/netns")  # in /run; the second for another exec-root of dockerd
ASIDE = Path("/host/aside")
MOUNTS = Path("/proc/self/mountinfo")
_BIND, _RECURSIVE, _DETACH = 4096, 16384, 2

_libc = ctypes.CDLL(None, use_errno=True)


def narrow(folders: Iterable[Path]) -> None:
    """Keep only these folders, iptables' lock and the containers' network namespaces.

    Does nothing outside a managed plugin. Without the right to mount, everything stays as it is,
    and a warning is logged. Errors: HostError when a folder is lost.
    """
    if not MANAGED.exists():
        return
    mounts = {line.split()[4] for line in MOUNTS.read_text().splitlines()}
    for whole in WHOLE:
        if str(whole) in mounts:
            _narrow(whole, folders)


def _narrow(whole: Path, folders: Iterable[Path]) -> None:
    """Bind what is needed elsewhere, detach the whole, and bind what is needed back.

    Errors: HostError when it cannot be bound back: nothing works without it.
    """
    aside: dict[Path, Path] = {}
    try:
        for number, path in enumerate(sorted(_needed(whole, folders))):
            _bind(path, ASIDE / str(number))
            aside[path] = ASIDE / str(number)
        _call(_libc.umount2(bytes(whole), _DETACH), whole)
    except OSError as error:
        log.warning("the plugin sees all of the host's %s: %s", whole, error)
    else:
        _restore(aside)
    for place in aside.values():
        _call(_libc.umount2(bytes(place), _DETACH), place)


def _restore(aside: Mapping[Path, Path]) -> None:
    for path, place in aside.items():
        try:
            _bind(place, path)
        except OSError as error:
            raise HostError(
                f"{path} of the host cannot be brought into the plugin: {error}"
            ) from None


def _needed(whole: Path, folders: Iterable[Path]) -> set[Path]:
    """Return the paths that are needed in a folder; those that are missing are created."""
    found = {path for path in folders if path.is_relative_to(whole)}
    if whole == LOCK.parent:
        found |= {OWN, whole / SANDBOXES[0], *whole.glob(SANDBOXES[1])}
        LOCK.touch(0o600)
    for path in found:
        path.mkdir(parents=True, exist_ok=True)
    return found | ({LOCK} if whole == LOCK.parent else set())


def _bind(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    flags = ctypes.c_ulong(_BIND | _RECURSIVE)
    _call(_libc.mount(bytes(source), bytes(target), None, flags, None), target)


def _call(failed: int, path: Path) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
