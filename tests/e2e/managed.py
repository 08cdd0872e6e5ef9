"""The managed plugin: built once for its contents, pushed to a registry on a host's loopback.

As a program: `python -m tests.e2e.managed TOOL ...`; TOOLS lists them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.bed import Host, Process, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import enter

NAME = "flannel-driver"
REGISTRY = "127.0.0.1:5000"
REFERENCE = f"{REGISTRY}/docker-flannel"
SOCKET = "/run/docker/plugins/flannel.sock"
STATE = "/var/lib/docker-flannel"
CACHE = Path(tempfile.gettempdir(), "docker-flannel-tests")  # the hosts see that folder
PORT = 7005  # of the echo
KEPT = 3  # plugins of other contents, as other worktrees have them
PINNED = ("packaging/venv", "packaging/build.txt", "packaging/requirements.txt")
SOURCES = ("driver", "plugin", *PINNED, "setup.cfg", "pyproject.toml")
DEBOOTSTRAP = ("debootstrap", "--variant=minbase", "trixie")
DISTRIBUTION = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "{address}"}}
"""


@cache
def built() -> Path:
    """Build the plugin's folder with `make rootfs`, from a base of debootstrap.

    Both are kept for the next run, under names made of what they are made from.
    """
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = CACHE / f"plugin-{_digest(*_contents())}"
        if not made.exists():
            base = _base()
            for old in sorted(CACHE.glob("plugin-*"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
                shutil.rmtree(old)
            _run("make", "rootfs", f"BASE={base}", f"FOLDER={made}")
        return made


def _base() -> Path:
    base = CACHE / f"base-{_digest(*(word.encode() for word in DEBOOTSTRAP))}"
    if not base.exists():
        part = base.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        _run(*DEBOOTSTRAP, str(part))
        part.rename(base)
    return base


def _contents() -> Iterator[bytes]:
    for name in SOURCES:
        top = PROJECT / name
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                yield str(file.relative_to(PROJECT)).encode()
                yield file.read_bytes()


def _digest(*parts: bytes) -> str:
    summed = hashlib.sha256()
    for part in parts:
        summed.update(len(part).to_bytes(8, "big") + part)
    return summed.hexdigest()[:16]


def _run(*argv: str) -> None:
    done = subprocess.run(
        argv, cwd=PROJECT, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def serve_registry(host: Host, storage: Path) -> Process:
    """Serve a registry on the host's loopback; hosts may share the folder `storage`."""
    program = storage.parent / "docker-registry"  # another root has none
    if not program.exists():
        shutil.copy("/usr/bin/docker-registry", program)
    storage.mkdir(exist_ok=True)
    config = host.folder / "registry.yml"
    config.write_text(DISTRIBUTION.format(folder=storage, address=REGISTRY))
    process = host.popen(program, "serve", config, log_name="registry")
    wait_for(lambda: host.reaches(f"http://{REGISTRY}/v2/"), "the registry")
    return process


def publish(host: Host, folder: Path) -> None:
    """Make a plugin of a folder, push it, and have another version of it in the registry."""
    host.docker("plugin", "create", REFERENCE, folder)
    host.docker("plugin", "push", REFERENCE)
    host.docker("plugin", "rm", REFERENCE)
    host.run(sys.executable, "-m", "tests.e2e.managed", "next_version", cwd=PROJECT)


def install(host: Host, *settings: str) -> None:
    """Install the plugin in one command."""
    options = ("--alias", NAME, "--grant-all-permissions", REFERENCE)
    host.docker("plugin", "install", *options, *settings)


def plugin(host: Host) -> dict[str, Any]:
    """Return what Docker says of the plugin, {} when it has none."""
    shown = host.docker("plugin", "inspect", NAME, check=False)
    found: list[dict[str, Any]] = json.loads(shown.stdout) if shown.ok else []
    return found[0] if found else {}


def status(host: Host) -> dict[str, Any]:
    """Ask the socket of the plain name, as the README does without the command line."""
    ask = ("curl", "-sS", "--unix-socket", SOCKET, "http://flannel/status")
    found: dict[str, Any] = json.loads(host.run(*ask).stdout)
    return found


def config_file(host: Host) -> Path:
    """Return the file where Docker keeps the config of the installed plugin."""
    return host.folder / "docker" / "plugins" / str(plugin(host)["Id"]) / "config.json"


@contextmanager
def conversation(host: Host, container: str, target: str) -> Iterator[Process]:
    """Keep a TCP connection of a container going; it must not have been interrupted."""
    words = (sys.executable, "-m", "tests.e2e.managed", "talk", target)
    process = host.popen(*enter(host, container), *words, cwd=PROJECT, log_name=f"talk-{container}")
    more(process)
    yield process
    more(process)
    process.kill()


def more(process: Process) -> None:
    """Wait until a conversation has gone on for a while from now."""
    begin = said(process)
    wait_for(lambda: said(process) >= begin + 5, "the conversation to go on")


def said(process: Process) -> int:
    """Count the lines that came back."""
    assert process.running(), process.log()
    return sum(line.isdigit() for line in process.log().splitlines())


def serve_lines(host: Host, container: str) -> Process:
    """Send back what comes to a port of a container."""
    words = (sys.executable, "-m", "tests.e2e.managed", "echo")
    process = host.popen(*enter(host, container), *words, cwd=PROJECT, log_name="echo-lines")
    wait_for(lambda: "ready" in process.log(), "the echo")
    return process


# --- tools ---


def echo() -> None:
    """Send all clients back what they send."""
    with socket.create_server(("", PORT)) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            client, _ = server.accept()
            threading.Thread(target=_echo, args=(client,), daemon=True).start()


def _echo(client: socket.socket) -> None:
    with client:
        while data := client.recv(1000):
            client.sendall(data)


def talk(target: str) -> None:
    """Send a line after the other and wait for its echo; an error when that takes too long."""
    with socket.create_connection((target, PORT), 20) as sock, sock.makefile("rw") as lines:
        number = 0
        while True:
            number += 1
            lines.write(f"{number}\n")
            lines.flush()
            answer = lines.readline()
            if answer != f"{number}\n":
                raise OSError(f"line {number} came back as {answer!r}")
            sys.stdout.write(answer)
            sys.stdout.flush()
            time.sleep(0.2)


def next_version() -> None:
    """Copy the plugin in the registry to the tag "next", with another description."""
    url, kind = f"http://{REGISTRY}/v2/docker-flannel", "application/vnd.docker.plugin.v1+json"
    media = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.loads(_ask("GET", f"{url}/manifests/latest", Accept=media)[1])
    config = json.loads(_ask("GET", f"{url}/blobs/{manifest['config']['digest']}")[1])
    blob = json.dumps({**config, "description": "next"}).encode()
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    upload, _ = _ask("POST", f"{url}/blobs/uploads/", b"")
    more = "&" if "?" in upload else "?"
    _ask(
        "PUT",
        f"{upload}{more}digest={digest}",
        blob,
        **{"Content-Type": "application/octet-stream"},
    )
    manifest["config"] = {"mediaType": kind, "size": len(blob), "digest": digest}
    body = json.dumps(manifest).encode()
    _ask("PUT", f"{url}/manifests/next", body, **{"Content-Type": media})


def _ask(method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[str, bytes]:
    asked = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - http
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
        return answer.headers.get("Location", ""), answer.read()


TOOLS: dict[str, Callable[..., None]] = {tool.__name__: tool for tool in (echo, talk, next_version)}

if __name__ == "__main__":
    TOOLS[sys.argv[1]](*sys.argv[2:])
