"""Control groups of a bed: every one is below a group with the bed's name, so all can go."""

from collections.abc import Sequence
from pathlib import Path

_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit; shift; done; shift; exec "$@"'


def _mounts(kind: str) -> list[Path]:
    rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(row[1]) for row in rows if row[2] == kind]


def needless() -> list[Path]:
    """Mount points of version 2 beside version 1, better hidden from a node.

    Docker can do without, and runc makes groups for managed plugins at the very top of it.
    """
    return _mounts("cgroup2") if _mounts("cgroup") else []


def tops(name: str) -> list[Path]:
    """Folders of the control group `/name` in the hierarchies of version 1, or in version 2."""
    return [mount / name for mount in _mounts("cgroup") or _mounts("cgroup2")]


def make(top: Path, below: str) -> Path:
    """Make the control group `below` the folder `top`, ready for processes; return its folder."""
    folder = top
    for part in ("", *Path(below).parts):
        folder /= part
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1
            own, above = folder / name, folder.parent / name
            if Path(top.parent, "cgroup.clone_children").exists() and own.exists():
                own.write_text(above.read_text())
    return folder


def joining(name: str, below: str) -> Sequence[str]:
    """Return the start of a command that runs the rest of it in the group `/name/below`."""
    files = [str(make(top, below) / "cgroup.procs") for top in tops(name)]
    return ["sh", "-c", _JOIN, "join", *files, "--"]
