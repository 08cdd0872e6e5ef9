"""Ask the plugin on its socket."""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPException
from typing import Any

from driver.config import Config
from driver.docker.unix_http import request
from driver.errors import Unavailable


def ask(config: Config, method: str, what: str, body: object = None) -> dict[str, Any]:
    """Send a request to the plugin, with `body` as JSON; return the JSON object of its answer.

    Errors: Unavailable with what to do, or with the plugin's own error.
    """
    path = config.sockets[0]
    try:
        status, fields = request(path, method, what, body)
        if not isinstance(fields, dict):
            raise ValueError("no JSON object")
    except PermissionError as error:
        raise Unavailable(f"only root may ask docker-flannel on {path}: use sudo") from error
    except (OSError, ValueError, HTTPException) as error:
        raise Unavailable(
            f"docker-flannel does not answer on {path} ({str(error).strip()}); start it with "
            "`systemctl start docker-flannel` or `docker-flannel serve`"
        ) from error
    if status != HTTPStatus.OK:
        raise Unavailable(fields.get("Err") or f"another program answers on {path}: {status}")
    return fields
