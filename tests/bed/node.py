"""A machine of the bed: its own processes, file system and network, ended by ending one process."""

import json
import logging
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Protocol

from tests.bed import rootfs
from tests.bed.commands import Call, CommandError, Process, Result, run, signal_one
from tests.bed.waiting import wait_for

log = logging.getLogger("bed")

SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"


class Wire(Protocol):
    """What a node is plugged into: the bed's LAN."""

    def attach(self, node: "Node") -> None:
        """Give the node its `eth0`."""

    def carrier(self, name: str, up: bool) -> None:
        """Plug the cable in or pull it."""


class Node:
    """A first process in its own PID, mount, network, UTS and IPC namespaces.

    `folder` is its folder in the bed, at the same path inside and outside; it outlives a reboot,
    as the bed's other files do, while `/run` and all changes elsewhere are gone with the power.
    """

    private: ClassVar[Mapping[Path, str]] = {}

    def __init__(
        self, name: str, folder: Path, adopt: Callable[[int], None], root: Path = Path("/")
    ) -> None:
        """Prepare a node without starting it; `adopt` is told each first process's id."""
        self.name = name
        self.folder = folder
        self.root = root
        self.address = ""
        self.wire: Wire | None = None
        self.history: list[Result] = []
        self._adopt = adopt
        self._outer: subprocess.Popen[str] | None = None
        self.pid = 0
        (folder / "tmp").mkdir(parents=True)
        (folder / "home").mkdir()

    def boot(self) -> None:
        """Switch the node on: namespaces, file system, `lo`, and `eth0` if it has a wire."""
        plan, new = rootfs.steps(self.folder, self.root, dict(self.private))
        argv, told = rootfs.command(plan, new)
        with (self.folder / "init.log").open("ab") as errors:
            self._outer = subprocess.Popen(
                [*argv, json.dumps(told)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={"PATH": SEARCH_PATH},
                encoding="utf-8",
                start_new_session=True,
            )
        assert self._outer.stdout is not None
        line = self._outer.stdout.readline()
        if not line:
            text = (self.folder / "init.log").read_text("utf-8", "replace")
            raise AssertionError(f"node {self.name} did not start:\n{text}")
        self.pid = int(line)
        self._adopt(self.pid)
        self.run("hostname", self.name)
        if self.wire is not None:
            self.wire.attach(self)

    def power_off(self, limit_s: float = 60) -> None:
        """Cut the power: all processes, mounts and namespaces of the node end at once."""
        if self._outer is None:
            return
        if self.pid:
            signal_one(self.pid, signal.SIGKILL)
        self.reap(limit_s)

    def reap(self, limit_s: float = 60) -> None:
        """Wait until the node has ended; raises subprocess.TimeoutExpired after `limit_s` s."""
        if self._outer is None:
            return
        for pipe in (self._outer.stdin, self._outer.stdout):
            if pipe is not None:
                pipe.close()
        self._outer.wait(limit_s)
        self._outer, self.pid = None, 0

    def reboot(self) -> None:
        """Cut the power and switch on again: an empty `/run`, a new boot id, nothing running."""
        self.power_off()
        self.boot()

    def cable(self, up: bool) -> None:
        """Plug the node's cable into the LAN or pull it."""
        assert self.wire is not None
        self.wire.carrier(self.name, up)

    def path(self, inside: str | Path) -> Path:
        """Return a path by which the outside reaches a file of the node, such as a socket."""
        return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        limit_s: float = 60,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002 - the name subprocess has given it
        cwd: Path | None = None,
    ) -> Result:
        """Run a command inside and return its result.

        `env` adds to a small environment of the node's own; nothing is inherited from outside.
        Raises CommandError after `limit_s` seconds, and for another exit code than 0 if `check`.
        """
        result, late = run(self._call(argv, env, cwd), limit_s, input)
        self.history.append(result)
        if late:
            raise CommandError(result, f": stopped at its limit of {limit_s:g} s", self.context())
        if check and not result.ok:
            raise CommandError(result, context=self.context())
        return result

    def popen(
        self,
        *argv: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log_name: str = "",
    ) -> Process:
        """Start a command inside that keeps running; its output goes to a file in `folder`.

        `log_name` is the file's name without ".log", by default the command's.
        """
        name = log_name or Path(argv[0]).name
        return Process(self._call(argv, env, cwd), self.folder / f"{name}.log")

    def context(self) -> str:
        """Text that goes into the message of a failed command; a kind of node may know more."""
        return ""

    def serve(self, text: str, port: int = 80) -> Process:
        """Answer HTTP requests for `/` on a TCP port of all addresses with `text`."""
        site = self.folder / f"www-{port}"
        site.mkdir(exist_ok=True)
        (site / "index.html").write_text(text)
        server = self.popen("busybox", "httpd", "-f", "-p", str(port), "-h", site)
        wait_for(lambda: self._listens(port), f"a server on port {port} of {self.name}", 20)
        return server

    def reaches(self, url: str, limit_s: int = 5) -> bool:
        """Whether an URL can be had from inside in at most `limit_s` seconds; for `wait_for`."""
        return self._curl(url, limit_s, check=False).ok

    def _listens(self, port: int) -> bool:
        rows = self.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines()
        return any(f":{port:04X}" in row.split()[1] and " 0A " in row for row in rows)

    def fetch(self, url: str, limit_s: int = 10) -> str:
        """Get an URL from inside, in at most `limit_s` seconds; raises CommandError."""
        return self._curl(url, limit_s, check=True).stdout

    def _curl(self, url: str, limit_s: int, *, check: bool) -> Result:
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", str(limit_s), url]
        # the limit of run() is a second line of defence, and later
        return self.run(*command, limit_s=limit_s + 30, check=check)

    def _call(
        self, argv: tuple[str | Path, ...], env: Mapping[str, str] | None, cwd: Path | None
    ) -> Call:
        assert self.pid, f"node {self.name} is not on"
        prefix = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", "--"]
        prefix += ["setsid", "env", "-C", str(cwd or "/")]
        own = {
            "PATH": SEARCH_PATH,
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
        }
        return Call(self.name, tuple(prefix), tuple(map(str, argv)), {**own, **(env or {})})
