"""What a command is answered, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from driver.__main__ import main

Serve = Callable[[bytes], Path]


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that has to fail; give its sentence."""
    assert main(list(words)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(("docker-flannel: ", "docker flannel: "))
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err
