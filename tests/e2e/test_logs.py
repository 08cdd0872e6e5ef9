"""The service's log in a real journal: each line with its priority."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.bed.rootfs import PROJECT

# In namespaces of its own: a journal, and the service connected to it as systemd connects it.
# systemd-cat opens the stream, and the variable is what systemd sets.
SCRIPT = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
wait_for() { n=0; until "$@"; do n=$((n + 1)); [ $n -lt 600 ] || exit 9; sleep 0.1; done; }
serve='JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'
level=$(sed -n 's/^SyslogLevel=//p' packaging/docker-flannel.service)
logged() { systemd-cat -p "$level" -t "$name" sh -c "$serve" sh "$python" -m driver serve "$@"; }
has() { journalctl -q --no-pager -t flannel | grep -q "$1"; }
/lib/systemd/systemd-journald 2>/dev/null &
wait_for test -S /run/systemd/journal/stdout
python=$1
name=flannel logged --socket /run/one.sock --state-dir /run/state &
wait_for has 'pass: '
ask() { curl -sS --unix-socket /run/one.sock -d "$1" "http://flannel/NetworkDriver.$2" >&2; }
ask '{"NetworkID":"x"}' CreateNetwork
name=second logged --socket /run/two.sock --state-dir /run/state >&2 || echo "ended with $?" >&2
kill -9 $(pgrep -P $(cut -d ' ' -f 2 /run/state/lock)) # gunicorn's worker
wait_for has SIGKILL
journalctl --flush --sync
journalctl -q --no-pager -t flannel -t second -o json
"""


@pytest.fixture(scope="module")
def entries() -> list[dict[str, Any]]:
    """Return what the journal has of a service that meets with this and that."""
    apart = ("unshare", "-m", "-n", "-p", "-f", "--mount-proc", "--kill-child")
    ran = subprocess.run(
        [*apart, "sh", "-c", SCRIPT, "sh", sys.executable],
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


def priorities(entries: list[dict[str, Any]], name: str, words: str) -> set[str]:
    """Return the priorities of the lines with these words."""
    return {
        entry["PRIORITY"]
        for entry in entries
        if entry["SYSLOG_IDENTIFIER"] == name and words in entry["MESSAGE"]
    }


def test_each_line_has_its_priority(entries: list[dict[str, Any]]) -> None:
    assert priorities(entries, "flannel", "driver.core.passes: pass: ") == {"6"}
    assert priorities(entries, "flannel", "call=NetworkDriver.CreateNetwork refused: ") == {"6"}
    assert priorities(entries, "flannel", "gunicorn.error: Worker (pid:") == {"3"}
    assert not any(entry["MESSAGE"].startswith("<") for entry in entries), "journald takes it off"


def test_last_words_are_errors(entries: list[dict[str, Any]]) -> None:
    assert priorities(entries, "second", "another docker-flannel works on ") == {"3"}
