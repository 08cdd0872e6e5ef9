"""Names beside ids in sentences: Docker's users know the one, the plugin the other."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from driver.docker.engine import Names
from driver.text import visible

# how sentences name a network or an endpoint, by words or by its link; not if the name follows
_MENTIONED = re.compile(r"\b(network[ =]|fl-|endpoint |flh)([0-9a-f]{12})\b(?! \()")
_NETWORK, _BRIDGE = "network", "fl-"
SOON_S = 1.0  # Docker lists a container some moments after its calls
SHARE = 50  # asking takes at most a fiftieth of the time


def named(text: str, names: Names) -> str:
    """Return a sentence with the name behind each id of a network or an endpoint that has one.

    A name already there is not repeated. Shape: "endpoint 0123456789ab (container web)".
    """

    def add(found: re.Match[str]) -> str:
        kind, cut = found.groups()
        if kind.startswith((_NETWORK, _BRIDGE)):
            label, known = "network " if kind == _BRIDGE else "", names.networks
        else:
            label, known = "container ", {i: c.name for i, c in names.containers.items()}
        name = next((name for i, name in known.items() if i.startswith(cut)), "")
        return f"{found[0]} ({label}{visible(name)})" if name else found[0]

    return _MENTIONED.sub(add, text)


class KnownNames:
    """The names as Docker had them lately.

    A call from Docker never waits for an answer of Docker's, so a thread asks for the names, soon
    after a call that may bring new ones.
    """

    def __init__(
        self, ask: Callable[[], Names] = Names, process: Callable[[], int] = lambda: 0
    ) -> None:
        """`process` returns dockerd's process id, 0 if none runs: its socket would start one."""
        self._ask, self._process = ask, process
        self._names, self._outdated = Names(), threading.Event()
        self._outdated.set()

    def __call__(self, text: str) -> str:
        """Return a sentence with the names that are known."""
        return named(text, self._names)

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the names into what is logged; all of it is."""
        with suppress(TypeError, ValueError, KeyError):  # a bad message: the handler reports it
            record.msg, record.args = self(record.getMessage()), None
        return True

    def outdate(self) -> None:
        """Have Docker asked soon."""
        self._outdated.set()

    @property
    def outdated(self) -> bool:
        """Whether Docker is to be asked."""
        return self._outdated.is_set()

    def run(self) -> None:
        """Ask whenever the names are outdated, for ever."""
        pause_s = SOON_S
        while True:
            self._outdated.wait()
            time.sleep(pause_s)
            began = time.monotonic()
            self.look()
            pause_s = max(SOON_S, SHARE * (time.monotonic() - began))

    def look(self) -> None:
        """Ask Docker if it runs; without an answer, the old names stay."""
        self._outdated.clear()
        found = self._ask() if self._process() else Names()
        if found.networks:  # it always has some
            self._names = found
