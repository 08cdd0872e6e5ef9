"""Ask the plugin on its socket."""

from __future__ import annotations

import os
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

from driver.docker.unix_http import request
from driver.errors import Unavailable

START = "start it with `systemctl start docker-flannel` or `docker-flannel serve`"
SUDO = "only root may ask it: run the command with sudo"


def ask(path: Path, method: str, what: str, body: object = None) -> dict[str, Any]:
    """Send a request to the plugin on its socket, with `body` as JSON; return its JSON object.

    Errors: Unavailable with what to do, or with the plugin's own error.
    """
    try:
        status, fields = request(path, method, what, body)
        if not isinstance(fields, dict):
            raise ValueError("no JSON object")
    except PermissionError as error:
        raise Unavailable(f"only root may ask docker-flannel on {path}: use sudo") from error
    except (OSError, ValueError, HTTPException) as error:
        cure = SUDO if os.geteuid() else START
        raise Unavailable(
            f"docker-flannel does not answer on {path} ({str(error).strip()}); {cure}"
        ) from error
    if status == HTTPStatus.NOT_FOUND:
        raise Unavailable(
            f"what answers on {path} does not know {what}: `systemctl restart docker-flannel` if "
            "it is of an older version"
        )
    if status != HTTPStatus.OK:
        raise Unavailable(fields.get("Err") or f"another program answers on {path}: {status}")
    return fields
