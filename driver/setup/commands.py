"""Run other programs to their end."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from driver.errors import HostError

LIMIT_S = 60.0
LONGEST = 300  # characters of a program's own words


def run(*words: str, limit_s: float = LIMIT_S, cwd: Path | None = None) -> str:
    """Run a program; return what it wrote to its standard output.

    Errors: HostError with the end of what it wrote to its standard error.
    """
    code, out, err = outcome(*words, limit_s=limit_s, cwd=cwd)
    if code:
        said = " ".join((err or out).split())[-LONGEST:]
        raise HostError(f"`{' '.join(words[:3])}` failed: {said or f'it ended with {code}'}")
    return out


def outcome(
    *words: str,
    limit_s: float = LIMIT_S,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run a program; return its exit status and what it wrote to its outputs.

    Errors: HostError if it cannot be started, or takes longer.
    """
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=limit_s,
            cwd=cwd,
            env=env,
            check=False,
        )
    except FileNotFoundError:
        raise HostError(f"{words[0]} is not installed") from None
    except OSError as error:
        raise HostError(f"{words[0]} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"`{' '.join(words[:3])}` has not ended within {limit_s:.0f} s") from None
    return done.returncode, done.stdout, done.stderr
