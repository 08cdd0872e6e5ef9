"""The command line, without settings of the surroundings, and its end of the socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from driver.config import SETTINGS
from driver.setup import settings_file
from tests.unit.cli.command import Serve


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    for variable in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The files that the settings are read from, not this machine's; neither is there yet."""
    found = tmp_path / "flanneld", tmp_path / "docker-flannel"
    monkeypatch.setattr(settings_file, "IN_ORDER", found)
    return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answer one request with some bytes."""
    listener = socket.socket(socket.AF_UNIX)
    threads = []

    def start(reply: bytes) -> Path:
        path = tmp_path / "sock"
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(reply)

        threads.append(threading.Thread(target=answer))
        threads[0].start()
        return path

    yield start
    for thread in threads:
        thread.join()
    listener.close()
