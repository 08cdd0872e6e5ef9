"""systemctl in small, for machines of the bed, which no systemd runs: what `init` and `join` use.

As a program it is the machine's `systemctl`. It reads units and drop-ins where systemd does, and
starts what they say with their environment, user and credentials; sandboxing and restarts it leaves
out. It keeps `tests/unit/setup/service_contract.py`, as systemd does.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PLACES = (Path("/etc/systemd/system"), Path("/lib/systemd/system"), Path("/usr/lib/systemd/system"))
RUN = Path("/run/units")
START_S = 90
CONTINUED = re.compile(r"\\\n\s*")


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value.strip("\"'")


class Unit:
    """A unit as its files define it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: list[Path] = []
        for place in PLACES:
            if not self.files and (place / name).exists():
                self.files.append(place / name)
        if self.files:
            for place in PLACES:
                self.files += sorted((place / f"{name}.d").glob("*.conf"))
        self.pid_file, self.enabled = RUN / f"{name}.pid", RUN / f"{name}.enabled"
        self.credentials = Path("/run/credentials", name)

    def values(self, key: str) -> Iterator[str]:
        found: list[str] = []
        for file in self.files:
            for line in CONTINUED.sub(" ", file.read_text()).splitlines():
                name, there, value = line.partition("=")
                if there and name.strip() == key:
                    found = [*found, value.strip()] if value.strip() else []
        specifiers = {"d": str(self.credentials), "H": socket.gethostname(), "p": self.name[:-8]}
        for value in found:
            yield re.sub(r"%(.)", lambda m: specifiers[m[1]], value)

    def pid(self) -> int:
        try:
            pid = int(self.pid_file.read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return 0
        return pid

    def environment(self) -> dict[str, str]:
        found = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        for line in self.values("Environment"):
            found.update(map(_pair, line.split()))
        for file in self.values("EnvironmentFile"):
            path = Path(file.removeprefix("-"))
            if path.exists() or not file.startswith("-"):
                lines = [x for x in path.read_text().splitlines() if "=" in x and x[0] != "#"]
                found.update(map(_pair, lines))
        return found

    def start(self) -> None:
        if self.pid():
            return
        if not self.files:
            sys.exit(f"Failed to start {self.name}: Unit {self.name} not found.")
        RUN.mkdir(exist_ok=True)
        user = next(iter(self.values("User")), "root")
        self._hand_out(user)
        command = list(self.values("ExecStart"))[-1]
        words = [w for w in re.sub(r"\$\w+", "", command).split() if w]
        ready = RUN / f"{self.name}.notify"
        ready.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(ready))
            ready.chmod(0o666)
            told.settimeout(0.2)
            env = {**self.environment(), "NOTIFY_SOCKET": str(ready)}
            with (RUN / f"{self.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    words, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    user=user, start_new_session=True, cwd="/",
                )  # fmt: skip
            self.pid_file.write_text(str(process.pid))
            if "notify" in self.values("Type"):
                self._await(process, told)

    def _hand_out(self, user: str) -> None:
        for line in self.values("LoadCredential"):
            name, _, file = line.partition(":")
            self.credentials.mkdir(parents=True, exist_ok=True)
            copy = self.credentials / name
            copy.unlink(missing_ok=True)
            copy.write_bytes(Path(file).read_bytes())
            copy.chmod(0o400)
            os.chown(copy, pwd.getpwnam(user).pw_uid, 0)

    def _await(self, process: subprocess.Popen[bytes], told: socket.socket) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            try:
                if b"READY=1" in told.recv(4096):
                    return
            except TimeoutError:
                pass
            if process.poll() is not None:
                sys.exit(f"Job for {self.name} failed because the control process exited.")
        sys.exit(f"Job for {self.name} timed out.")

    def stop(self) -> None:
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
        while pid and self.pid():
            time.sleep(0.05)
        self.pid_file.unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self.start()

    def show(self) -> None:
        own, *more = [str(file) for file in self.files] or [""]
        sys.stdout.write(f"FragmentPath={own}\nDropInPaths={' '.join(more)}\n")

    def enable(self) -> None:
        RUN.mkdir(exist_ok=True)
        self.enabled.touch()

    def disable(self) -> None:
        self.enabled.unlink(missing_ok=True)

    def is_active(self) -> int:
        return 0 if self.pid() else 3

    def is_enabled(self) -> int:
        return 0 if self.enabled.exists() else 1


DONE = {
    "show": Unit.show,
    "start": Unit.start,
    "stop": Unit.stop,
    "restart": Unit.restart,
    "enable": Unit.enable,
    "disable": Unit.disable,
    "is-active": Unit.is_active,
    "is-enabled": Unit.is_enabled,
}


def main(verb: str, *words: str) -> int:
    """Do what systemctl would; return its exit status."""
    if verb == "daemon-reload":
        return 0
    [name] = [word for word in words if not word.startswith("--")]
    return DONE[verb](Unit(name)) or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
