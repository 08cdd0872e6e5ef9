"""Which Docker: the one that the docker command would ask.

Options come before variables, variables before the current context in the folder of Docker's
settings. Source: docker/cli, cli/command/cli.go, resolveContextName.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from driver.docker.engine import SOCKET
from driver.errors import BadRequest
from driver.files import read_file

DEFAULT = "default"  # the context that stands for DOCKER_HOST or Docker's usual socket
SCHEME = "unix://"


def find(options: Mapping[str, str], environment: Mapping[str, str]) -> Path:
    """Return the socket of the chosen Docker.

    Shape: `options` by name: --host, --context, --config.
    Errors: BadRequest if the context is unknown, or Docker is reached by anything but a socket.
    """
    context, host = options.get("--context"), options.get("--host")
    if context and host:
        raise BadRequest(f"--context {context} and --host {host}: use only one of them")
    if not context:
        if host:
            return _socket(host, "--host")
        if host := environment.get("DOCKER_HOST"):
            return _socket(host, "DOCKER_HOST")
    folder = _folder(options, environment)
    context = context or environment.get("DOCKER_CONTEXT") or _current(folder)
    if context == DEFAULT:
        host = environment.get("DOCKER_HOST")
        return _socket(host, "DOCKER_HOST") if host else SOCKET
    return _socket(_host_of(folder, context), f"Docker's context {context!r}")


def _folder(options: Mapping[str, str], environment: Mapping[str, str]) -> Path:
    home = Path(environment.get("HOME") or "~").expanduser()
    return Path(options.get("--config") or environment.get("DOCKER_CONFIG") or home / ".docker")


def _current(folder: Path) -> str:
    try:
        settings = json.loads(read_file(folder / "config.json"))
        return str(settings.get("currentContext") or DEFAULT)
    except (OSError, ValueError, AttributeError):  # docker itself warns of such a file
        return DEFAULT


def _host_of(folder: Path, context: str) -> str:
    file = folder / "contexts/meta" / sha256(context.encode()).hexdigest() / "meta.json"
    try:
        found: Any = json.loads(read_file(file))
        return str(found["Endpoints"]["docker"]["Host"])
    except FileNotFoundError:
        raise BadRequest(
            f"Docker's context {context!r} does not exist; `docker context ls` lists them"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequest(
            f"Docker's context {context!r} cannot be read from {file}: {error}"
        ) from None


def _socket(host: str, source: str) -> Path:
    if host.startswith(SCHEME):
        path = host.removeprefix(SCHEME)
        return Path(path) if path else SOCKET
    scheme, between, rest = host.partition("://")
    shown = f"{scheme}{between}{rest.rpartition('@')[2]}"  # what is before @ may hold a password
    raise BadRequest(
        f"{source} leads to {shown}, which is no socket of this host; docker flannel is about the "
        "host it runs on: run it there"
    )
