"""Runs a command as a systemd unit would, where no systemd runs: `confine.py UNIT KEEP... -- ARGV`.

It reads the unit's own lines, so what is missing there is missing here: capabilities, no new
privileges, system calls and their arguments, and what is read-only, hidden or private in the file
system. KEEP are folders of the bed, which no real host has; they are kept, read-only.
"""

import ctypes
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 1, 32, 4096, 16384, 1 << 19
MS_FLAGS = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "relatime": 1 << 21}
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
NAMESPACES = {"net": 0x40000000}
ALL_NAMESPACES = 0x7E020080
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
ALLOW, DENY = 0x7FFF0000, 0x00050001  # the second with EPERM
NE, EQ, MASKED = 1, 4, 7

Settings = dict[str, list[str]]


def settings(unit: Path) -> Settings:
    """Return the words of each setting; a line that comes twice adds to the first."""
    found: Settings = defaultdict(list)
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name] += value.split()
    return found


def called(result: int, what: str) -> None:
    """Stop when the kernel says no."""
    if result:
        raise OSError(ctypes.get_errno(), what)


def mount(source: str, target: str, flags: int, kind: str = "", data: str = "") -> None:
    """Call mount(2)."""
    words = [word.encode() for word in (source, target, kind)]
    called(LIBC.mount(*words, flags, data.encode()), f"mount {source} {target}")


# --- the file system ---


def confine_files(unit: Settings, keep: list[str]) -> None:
    """Make a mount namespace in which all is read-only or hidden that the unit says."""
    called(LIBC.unshare(0x20000), "unshare")
    mount("", "/", MS_SLAVE | MS_REC)  # what is mounted outside comes in, as systemd has it
    writable = [f"/var/lib/{name}" for name in unit["StateDirectory"]] + unit["ReadWritePaths"]
    _bind(writable)
    writable += _hide(unit, keep)
    kernels = [path.removeprefix("-") for path in unit["ReadOnlyPaths"]]
    kernels = [path for path in kernels if Path(path).exists()]
    _bind(kernels)
    assert unit["ProtectSystem"] == ["strict"]
    for path, options in _mounts():
        if _below(path, kernels) or not _below(path, [*writable, "/proc", "/dev"]):
            flags = sum(flag for word, flag in MS_FLAGS.items() if word in options)
            mount("", path, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)


def _bind(paths: list[str]) -> None:
    """Make mounts of folders, so that they can differ from what is around them."""
    for path in paths:
        if not Path(path).exists():
            Path(path).mkdir(parents=True)
        mount(path, path, MS_BIND | MS_REC)


def _hide(unit: Settings, keep: list[str]) -> list[str]:
    """Cover what the unit does not see, but for what is kept; return what is writable of it."""
    opened = {path: os.open(path, os.O_PATH) for path in keep}
    private = ["/tmp", "/var/tmp"] if unit["PrivateTmp"] == ["yes"] else []
    for path in private:
        mount("private", path, 0, "tmpfs")
    if unit["ProtectHome"] == ["yes"]:
        for path in ("/home", "/root"):
            mount("hidden", path, 0, "tmpfs", "mode=700")
    for path, handle in opened.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", path, MS_BIND | MS_REC)
        os.close(handle)
    return private


def _mounts() -> list[tuple[str, list[str]]]:
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [(row[4].encode().decode("unicode_escape"), row[5].split(",")) for row in rows]


def _below(path: str, tops: list[str]) -> bool:
    return any(Path(path).is_relative_to(top) for top in tops)


# --- rights ---


def confine_rights(unit: Settings) -> None:
    """Drop the capabilities that the unit does not name, for good."""
    capsh = subprocess.run(["capsh", "--print"], capture_output=True, text=True, check=True)
    known = capsh.stdout.split("Bounding set =")[1].splitlines()[0].split(",")
    kept = {_number(name) for name in unit["CapabilityBoundingSet"]}
    for number in {_number(name) for name in known} - kept:
        called(LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "prctl")
    assert unit["NoNewPrivileges"] == ["yes"]
    called(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def _number(capability: str) -> int:
    names = ctypes.CDLL("libcap.so.2")
    found = ctypes.c_int()
    called(
        names.cap_from_name(capability.strip().lower().encode(), ctypes.byref(found)), capability
    )
    return found.value


# --- system calls ---


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class Filter:
    """One filter of libseccomp."""

    def __init__(self, otherwise: int) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2")
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._filter = ctypes.c_void_p(self._lib.seccomp_init(otherwise))

    def add(self, action: int, name: str, *when: tuple[int, int, int, int]) -> None:
        """Set what happens to a system call with arguments like these."""
        number = self._lib.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else it is none of this machine's
            rules = (Comparison * len(when))(*(Comparison(*one) for one in when))
            add = self._lib.seccomp_rule_add_array
            called(add(self._filter, action, number, len(when), rules), name)

    def load(self) -> None:
        """Put it into force."""
        called(self._lib.seccomp_load(self._filter), "seccomp_load")


def confine_calls(unit: Settings) -> None:
    """Allow the system calls that the unit names, with the arguments that it allows."""
    allowed = Filter(DENY)
    for name in sorted(set().union(*map(_calls, unit["SystemCallFilter"]))):
        allowed.add(ALLOW, name)
    denied = Filter(ALLOW)
    if unit["MemoryDenyWriteExecute"] == ["yes"]:
        denied.add(DENY, "mmap", (2, MASKED, 6, 6))
        for name in ("mprotect", "pkey_mprotect"):
            denied.add(DENY, name, (2, MASKED, 4, 4))
    families = {FAMILIES[name] for name in unit["RestrictAddressFamilies"]}
    for family in set(range(46)) - families:
        denied.add(DENY, "socket", (0, EQ, family, 0))
    kept = sum(NAMESPACES[name] for name in unit["RestrictNamespaces"] if name != "yes")
    denied.add(DENY, "setns", (1, EQ, 0, 0))
    for bit in (1 << n for n in range(32) if ALL_NAMESPACES & ~kept & 1 << n):
        denied.add(DENY, "setns", (1, MASKED, bit, bit))
        denied.add(DENY, "unshare", (0, MASKED, bit, bit))
        denied.add(DENY, "clone", (0, MASKED, bit, bit))
    denied.load()
    allowed.load()  # the last: it need not allow to load another


def _calls(word: str) -> set[str]:
    """Return the system calls in a set of systemd's, or the one that is named."""
    if not word.startswith("@"):
        return {word}
    ask = ["systemd-analyze", "syscall-filter", "--no-pager", word]
    shown = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    names = [line.strip() for line in shown if line.strip() and not line.strip().startswith("#")]
    return set().union(*map(_calls, names))


def main(unit: str, *words: str) -> None:
    """Confine this process, and become the command."""
    found, folder = settings(Path(unit)), str(Path.cwd())
    keep, argv = list(words[: words.index("--")]), words[words.index("--") + 1 :]
    confine_files(found, keep)
    os.chdir(folder)
    confine_rights(found)
    confine_calls(found)
    os.execvp(argv[0], argv)  # noqa: S606 - the caller's command


if __name__ == "__main__":
    main(*sys.argv[1:])
