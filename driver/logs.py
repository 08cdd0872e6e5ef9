"""Where the service's log goes, and in which form.

Under systemd, each line begins with its priority, which the journal takes off. Lines that Python or
a library writes without logging have the unit's SyslogLevel. Docker logs what a managed plugin
writes to stdout as information, and what it writes to stderr as errors. Elsewhere, all goes to
stderr. An event is one line, whatever names it contains; only a traceback has more.
Source: sd-daemon(3), systemd.exec(5) on JOURNAL_STREAM.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from driver.text import visible

PLAIN = "%(levelname)s %(name)s: %(message)s"
JOURNAL = "%(name)s: %(message)s"
PRIORITIES = (  # of syslog, for all levels from these
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
DEBUG = 7
LONGEST = 8000  # characters of a line: journald divides what is too long, dockerd stops reading


def start(level: str, environment: Mapping[str, str], *, managed: bool) -> None:
    """Send all that is logged from now on to where this program's output is read.

    `managed`: whether this is a managed plugin.
    """
    if _is_journal(sys.stderr, environment):
        handlers = [_handler(sys.stderr, Lines(JOURNAL, priorities=True))]
    elif managed:
        news = _handler(sys.stdout, Lines(PLAIN))
        news.addFilter(lambda record: record.levelno < logging.WARNING)
        faults = _handler(sys.stderr, Lines(PLAIN))
        faults.setLevel(logging.WARNING)
        handlers = [news, faults]
    else:
        handlers = [_handler(sys.stderr, Lines(PLAIN))]
    logging.basicConfig(level=level.upper(), handlers=handlers)


class Lines(logging.Formatter):
    """Formats an event as lines that each can stand alone."""

    def __init__(self, form: str, *, priorities: bool = False) -> None:
        super().__init__(form)
        self._priorities = priorities

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the message in one line."""
        return visible(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, and the traceback if there is one, without an end of line."""
        priority = f"<{_priority(record.levelno)}>" if self._priorities else ""
        lines = super().format(record).split("\n")
        return "\n".join(f"{priority}{_cut(visible(line))}" for line in lines)


def _priority(level: int) -> int:
    return next((number for lowest, number in PRIORITIES if level >= lowest), DEBUG)


def _cut(line: str) -> str:
    left = len(line) - LONGEST
    return f"{line[:LONGEST]}… and {left} more characters" if left > 0 else line


def _handler(stream: TextIO, form: logging.Formatter) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(form)
    return handler


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether a stream leads to systemd's journal: a child process inherits the variable alone."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # it has no file, or is closed
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
