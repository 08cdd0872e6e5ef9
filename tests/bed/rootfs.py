"""The file system of a node: the one place that decides what is the root and what is shared.

The root is an overlay over another root directory ("/" or, say, a debootstrap tree) with the
upper half in memory, so nothing written inside reaches it. Shared with the outside, at the same
paths, are only the bed's folder, the folder for temporary files, the project and the interpreter.
"""

import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.bed import cgroups

PROJECT = Path(__file__).resolve().parents[2]

Step = list[str]


def shared() -> list[Path]:
    """Folders that are bound inside: temporary files, project, interpreter and its virtualenv."""
    found = [Path(tempfile.gettempdir()), PROJECT, Path(sys.base_prefix), Path(sys.prefix)]
    found += [Path(folder).resolve() for folder in found]
    return [path for path in dict.fromkeys(found) if path not in (Path("/"), Path("/usr"))]


def _interpreter(root: Path) -> list[Path]:
    """Paths of an interpreter in /usr, for another root that has a /usr of its own."""
    if root == Path("/") or sys.base_prefix != "/usr":
        return []
    program = Path(sys.executable).resolve()
    return [Path(sysconfig.get_path("stdlib")), program, program.with_name("python3")]


def steps(folder: Path, root: Path, private: dict[Path, str]) -> tuple[list[Step], Path]:
    """Return the commands that build the file system, and the folder that then is its root.

    `folder` is the node's folder in the bed. `private` maps paths inside to names of folders in
    `folder`, which keep what is written there over a reboot. The commands run inside fresh mount,
    network and PID namespaces, so that sysfs and proc show those.
    """
    top, new = folder / "top", folder / "root"
    layers = f"lowerdir={root},upperdir={top}/upper,workdir={top}/work"
    plan = [
        ["mkdir", "-p", str(top), str(new)],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "bed", str(top)],
        ["mkdir", f"{top}/upper", f"{top}/work"],
        ["mount", "-t", "overlay", "-o", layers, "bed", str(new)],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "bed", f"{new}/run"],
        ["mount", "-t", "proc", "bed", f"{new}/proc"],
        ["mount", "-t", "sysfs", "bed", f"{new}/sys"],
        ["mount", "--rbind", "/sys/fs/cgroup", f"{new}/sys/fs/cgroup"],
        *(["umount", f"{new}{mount}"] for mount in cgroups.needless()),
        ["mount", "--rbind", "/dev", f"{new}/dev"],
        *_masks(folder, new),
    ]
    for path in [*shared(), *_interpreter(root)]:
        plan += _bind(path, new, path)
    for path, name in private.items():
        plan += _bind(folder / name, new, path)
    return plan, new


def _bind(source: Path, new: Path, inside: Path) -> list[Step]:
    target = Path(f"{new}{inside}")
    make = [["mkdir", "-p", str(source), str(target)]]
    if source.is_file():
        make = [["mkdir", "-p", str(target.parent)], ["touch", str(target)]]
    return [*make, ["mount", "--bind", str(source), str(target)]]


def _masks(folder: Path, new: Path) -> Sequence[Step]:
    """Cover files of the kernel that are not per namespace.

    A new boot id for each boot. dockerd raises the kernel's key limits when they are below
    1,000,000 keys; shown as high as that, it leaves them alone.
    """
    texts = {"random/boot_id": f"{uuid.uuid4()}\n"}
    for name in ("root_maxkeys", "root_maxbytes"):
        texts[f"keys/{name}"] = "25000000\n"
    plan = []
    for name, text in texts.items():
        inside = Path("/proc/sys/kernel", name)
        if inside.exists():
            cover = folder / inside.name
            cover.write_text(text)
            plan.append(["mount", "--bind", str(cover), f"{new}{inside}"])
    return plan


def command(plan: list[Step], root: Path) -> tuple[list[str], dict[str, object]]:
    """Return the command that starts a node's first process, and what it is told."""
    first = Path(__file__).with_name("init.py")
    unshare = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--net", "--uts", "--ipc"]
    return [*unshare, "--", sys.executable, "-I", str(first)], {
        "steps": plan,
        "root": str(root),
    }
