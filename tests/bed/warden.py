"""The bed's warden: the process that outlives the owner just long enough to tidy up.

Runs by path, alone, in its own session. Arguments: the bed's folder, a folder to keep log files in
(or an empty string), and the folders of the bed's control groups. It reads process ids of nodes,
one a line, from stdin. At the end of stdin, however the owner ended, it kills the nodes and removes
groups and folder. Exit code 1 and a message on stderr when something could not be removed.
"""

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

LIMIT_S = 60


def retry(what: str, action: Callable[[], object]) -> None:
    """Repeat an action that the kernel refuses for a while; SystemExit after the limit."""
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            action()
        except OSError as error:
            if time.monotonic() > end:
                sys.exit(f"bed: could not {what}: {error}")
            time.sleep(0.05)
        else:
            return


def end_node(handle: int) -> None:
    """Kill a node's first process and wait; all its processes are dead when it is."""
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
    if not select.select([handle], [], [], LIMIT_S)[0]:
        sys.exit("bed: a node did not die")


def remove_cgroup(top: Path) -> None:
    """Remove a control group and all below it; OSError while one is in use."""
    for folder, _, _ in os.walk(top, topdown=False):
        Path(folder).rmdir()


def remove_folder(folder: Path) -> None:
    """Remove a folder, unless it is gone; OSError while something in it is in use."""
    if folder.exists():
        shutil.rmtree(folder)


def main() -> None:
    """Watch the owner, then tidy up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder, keep, groups = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    handles = []
    for line in sys.stdin:
        try:
            handles.append(os.pidfd_open(int(line)))
        except ProcessLookupError:
            continue
    for handle in handles:
        end_node(handle)
    if keep:
        for file in folder.rglob("*.log"):
            target = Path(keep, folder.name, file.relative_to(folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    for group in groups:
        retry(f"remove {group}", partial(remove_cgroup, Path(group)))
    retry(f"remove {folder}", partial(remove_folder, folder))


main()
