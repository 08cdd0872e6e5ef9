"""Commands: run to the end with a limit, or kept running with a log file."""

import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bed.waiting import wait_for

log = logging.getLogger("bed")
log.setLevel(logging.INFO)

_TIMED_OUT = -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished command left: where it ran, its exit code and output, and seconds taken."""

    where: str
    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.code == 0

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.argv)} -> {self.code} in {self.seconds:.2f} s"


class CommandError(AssertionError):
    """A command failed or passed its limit; the message shows command, exit code and output."""

    def __init__(self, result: Result, why: str = "", context: str = "") -> None:
        self.result = result
        parts = [f"{result}{why}", result.stdout.rstrip(), result.stderr.rstrip(), context]
        super().__init__("\n".join(part for part in parts if part))


@dataclass(frozen=True, slots=True)
class Call:
    """One command as it is handed to the system: `prefix` enters a node and is not shown.

    The prefix makes the command the leader of a session of its own.
    """

    where: str
    prefix: tuple[str, ...]
    argv: tuple[str, ...]
    env: Mapping[str, str]


def run(call: Call, limit_s: float, data: str | None = None) -> tuple[Result, bool]:
    """Run to the end; return the result and whether `limit_s` seconds were not enough.

    A command past its limit is killed with all its process group.
    """
    begin = time.monotonic()
    with subprocess.Popen(
        [*call.prefix, *call.argv],
        env=dict(call.env),
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        late = False
        try:
            out, err = process.communicate(data, timeout=limit_s)
        except subprocess.TimeoutExpired:
            late = True
            for pid in [*children(process.pid), process.pid]:
                signal_group(pid, signal.SIGKILL)
            out, err = process.communicate()
    code = _TIMED_OUT if late else process.returncode
    result = Result(call.where, call.argv, code, out, err, time.monotonic() - begin)
    log.info("%s (limit %g s)", result, limit_s)
    return result, late


class Process:
    """A command kept running inside a node, with its output in a log file.

    It leads its own session and process group there. `pid` is its number outside the node.
    """

    def __init__(self, call: Call, log_file: Path) -> None:
        """Start the command; its output is appended to `log_file`."""
        self.argv = call.argv
        self.where = call.where
        self.log_file = log_file
        with log_file.open("ab") as out:
            self._outer = subprocess.Popen(
                [*call.prefix, *call.argv],
                env=dict(call.env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        log.info("%s: %s started", self.where, shlex.join(self.argv))
        self.pid = wait_for(self._find, f"{self.argv[0]} to be started", every_s=0.005)

    def _find(self) -> int:
        found = children(self._outer.pid)
        if not found and self._outer.poll() is not None:
            raise AssertionError(f"{shlex.join(self.argv)} ended at once:\n{self.log()}")
        # nsenter forks first; setsid(2) has been called once the child leads its own group
        return next((pid for pid in found if pid in members(pid)), 0)

    @property
    def code(self) -> int | None:
        """Exit code as subprocess gives it, None while running."""
        return self._outer.poll()

    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.code is None

    def signal(self, number: int) -> None:
        """Send a signal to the process itself; nothing happens when it has ended."""
        if self.running():
            signal_one(self.pid, number)

    def wait(self, limit_s: float = 60) -> int:
        """Wait for the end and return the exit code; raises WaitError after `limit_s` seconds."""
        wait_for(lambda: not self.running(), f"{shlex.join(self.argv)} to end", limit_s)
        code = self.code
        assert code is not None
        log.info("%s: %s ended with %d", self.where, shlex.join(self.argv), code)
        return code

    def stop(self, limit_s: float = 60) -> int:
        """Send SIGTERM to the process itself and wait for its end; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def kill(self, limit_s: float = 60) -> None:
        """Send SIGKILL to its whole process group and wait until all of it is gone."""
        signal_group(self.pid, signal.SIGKILL)
        wait_for(lambda: not members(self.pid), f"the group of {self.argv[0]} to end", limit_s)
        self.wait(limit_s)

    def log(self) -> str:
        """All output so far, also of earlier processes with the same log file."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""


def signal_one(pid: int, number: int) -> None:
    """Send a signal to one process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.debug("process %d is gone", pid)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group that may be gone."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        log.debug("process group %d is gone", pid)


def process_table() -> dict[int, tuple[int, int]]:
    """Map each live process (zombies left out) to its parent and its process group."""
    table = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text("utf-8", "replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] not in "ZX":
            table[int(entry.parent.name)] = (int(fields[1]), int(fields[2]))
    return table


def children(pid: int) -> list[int]:
    """Live children of a process."""
    return [child for child, (parent, _) in process_table().items() if parent == pid]


def members(group: int) -> list[int]:
    """Live members of a process group."""
    return sorted(pid for pid, (_, its) in process_table().items() if its == group)


def tail(texts: Mapping[str, str], lines: int = 20) -> str:
    """Show the last lines of several named texts, the empty ones left out."""
    shown: Sequence[str] = [
        f"--- end of {name}\n" + "\n".join(text.splitlines()[-lines:])
        for name, text in texts.items()
        if text.strip()
    ]
    return "\n".join(shown)
