"""Commands and files in a machine by QEMU's guest agent, which needs no network and no login."""

import base64
import contextlib
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.vm.talk import Talk, TalkError

_CHUNK = 1 << 20  # bytes of a file in one message
_NUMBERS = itertools.count(int(time.time()))


class Agent:
    """The agent of one machine; `path` is the socket that QEMU connects to it."""

    def __init__(self, path: Path) -> None:
        """Prepare; nothing is connected before the first question."""
        self._path = path
        self._talk: Talk | None = None

    def answers(self, limit_s: float = 2) -> bool:
        """Whether the agent runs; also drops what an earlier question left unanswered."""
        number = next(_NUMBERS)
        with contextlib.suppress(OSError, EOFError, ValueError):
            self._talk = self._talk or Talk(self._path)
            self._talk.send("guest-sync-delimited", {"id": number}, before=b"\xff")
            end = time.monotonic() + limit_s
            while (left := end - time.monotonic()) > 0:
                if self._talk.receive(left).get("return") == number:
                    return True
            return False
        self.close()
        return False

    def close(self) -> None:
        """End the connection; the next question makes a new one."""
        if self._talk is not None:
            self._talk.close()
            self._talk = None

    def ask(self, command: str, limit_s: float = 60, **arguments: Any) -> Any:
        """Return the agent's answer; raises TalkError when there is none within `limit_s` s."""
        if self._talk is None and not self.answers(limit_s):
            raise TalkError(f"{command}: the guest agent does not answer")
        assert self._talk is not None
        try:
            return self._talk.ask(command, limit_s, **arguments)
        except (OSError, EOFError) as error:
            self.close()
            raise TalkError(f"{command}: the guest agent's answer did not come: {error}") from error

    def execute(
        self, argv: list[str], env: Mapping[str, str], data: str | None, limit_s: float
    ) -> tuple[int, str, str]:
        """Run a command to its end; return exit code (124: at its limit), output, errors."""
        end = time.monotonic() + limit_s + 60  # timeout(1) in the machine is the first limit
        given: dict[str, Any] = {}
        if data is not None:
            given["input_data"] = base64.b64encode(data.encode()).decode()
        pid = self.ask(
            "guest-exec",
            path="timeout",
            arg=["--kill-after=5", f"{limit_s:g}", *argv],
            env=[f"{name}={value}" for name, value in env.items()],
            capture_output=True,
            **given,
        )["pid"]
        pause = 0.01
        while not (state := self.ask("guest-exec-status", pid=pid))["exited"]:
            if time.monotonic() > end:
                raise TalkError(f"{argv[0]} did not end, nor could be stopped")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.3)
        code = state.get("exitcode", -state.get("signal", 0))
        return code, _text(state.get("out-data", "")), _text(state.get("err-data", ""))

    def begin(self, *argv: str) -> None:
        """Start a command that ends the agent too."""
        self.ask("guest-exec", path=argv[0], arg=list(argv[1:]))

    def write(self, inside: str, data: bytes) -> None:
        """Write a file in the machine."""
        handle = self.ask("guest-file-open", path=inside, mode="w")
        try:
            for start in range(0, len(data), _CHUNK):
                part = base64.b64encode(data[start : start + _CHUNK]).decode()
                self.ask("guest-file-write", handle=handle, buf_b64=part)
        finally:
            self.ask("guest-file-close", handle=handle)


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode("utf-8", "replace")
