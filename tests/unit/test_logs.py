"""The service's log: where it goes, and in which form."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from driver.logs import LONGEST

# what a service may log, and what Python itself writes
PROGRAM = """\
import logging, os, sys
from gunicorn.config import Config
from driver import logs
from driver.service import _Logger
found = os.fstat(2)
stream = f"{found.st_dev}:{found.st_ino + int(sys.argv[2])}"
logs.start("debug", {"JOURNAL_STREAM": stream} if sys.argv[1] == "journal" else {},
           managed=sys.argv[1] == "managed")
log = logging.getLogger("driver.some.room")
log.debug("one")
log.info("two %s", "with\\nan end, \\x1b[31mred\\udcff and é")
log.warning("three")
try:
    raise OSError("first\\n<0>second")
except OSError as error:
    log.error("four", exc_info=error)
log.log(logging.CRITICAL, "five")
log.log(25, "between info and warning")
log.info("%s", "x" * 100_000)
workers = _Logger(Config())
workers.warning("Worker (pid:%s) was sent %s!", 7, "SIGKILL")
workers.info("never shown")
"""


def said(kind: str, inode_off_by: int = 0) -> tuple[list[str], list[str]]:
    """Return the lines on stdout and stderr of a program that logs."""
    words = (sys.executable, "-c", PROGRAM, kind, str(inode_off_by))
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(words, capture_output=True, text=True, check=True, env=env, timeout=60)
    return ran.stdout.splitlines(), ran.stderr.splitlines()


def test_each_line_in_the_journal_has_its_priority() -> None:
    out, lines = said("journal")
    assert out == []
    assert lines[:3] == [
        "<7>driver.some.room: one",
        r"<6>driver.some.room: two with\nan end, \x1b[31mred\udcff and é",
        "<4>driver.some.room: three",
    ]
    assert lines[3:5] == [
        "<3>driver.some.room: four",
        "<3>Traceback (most recent call last):",
    ]
    assert lines[5:-6] != []
    assert lines[-6:-4] == ["<3>OSError: first", "<3><0>second"]
    assert lines[-4:-2] == [
        "<2>driver.some.room: five",
        "<6>driver.some.room: between info and warning",
    ]
    assert all(line.startswith("<3>") for line in lines[3:-4])
    assert lines[-1] == "<4>gunicorn.error: Worker (pid:7) was sent SIGKILL!"


def test_no_line_is_too_long_for_who_reads_it() -> None:
    cut = said("journal")[1][-2]
    assert cut.startswith("<6>driver.some.room: xxx")
    assert len(cut) < LONGEST + 50
    assert cut.endswith(f"… and {100_000 + len('driver.some.room: ') - LONGEST} more characters")


@pytest.mark.parametrize(("kind", "off_by"), [("terminal", 0), ("journal", 1)])
def test_elsewhere_the_level_is_a_word(kind: str, off_by: int) -> None:
    out, lines = said(kind, off_by)
    assert out == []
    assert lines[0] == "DEBUG driver.some.room: one"
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == "WARNING gunicorn.error: Worker (pid:7) was sent SIGKILL!"


def test_a_closed_stream_is_no_journal() -> None:
    words = "import sys; from driver import logs; logs.start('info', {}, managed=False)"
    shell = f'exec {sys.executable} -c "$0" 2>&-'
    assert subprocess.run(["sh", "-c", shell, words], check=False, timeout=60).returncode == 0


def test_a_managed_plugin_has_only_what_is_wrong_on_stderr() -> None:
    out, lines = said("managed")
    assert [line.split()[0] for line in out] == ["DEBUG", "INFO", "Level", "INFO"]
    assert [line.split()[0] for line in lines if "driver.some.room" in line] == [
        "WARNING",
        "ERROR",
        "CRITICAL",
    ]
    assert lines[-1] == "WARNING gunicorn.error: Worker (pid:7) was sent SIGKILL!"
