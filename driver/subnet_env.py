"""The files other tools read: `subnet.env` as flanneld writes it, and Docker's options.

Imports `model`, `errors`, `docker_opts`.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

from driver.docker_opts import options
from driver.errors import StoreError
from driver.model import Overlay


def write_subnet_env(
    path: Path, overlay: Overlay, subnet: IPv4Network, mtu: int, *, ipmasq: bool
) -> None:
    """Write `subnet.env`; `mtu` in bytes, for containers.

    Errors: StoreError.
    Source: flannel, pkg/subnet WriteSubnetFile.
    """
    _replace(
        path,
        f"FLANNEL_NETWORK={overlay.network}\n"
        f"FLANNEL_SUBNET={subnet[1]}/{subnet.prefixlen}\n"
        f"FLANNEL_MTU={mtu}\n"
        f"FLANNEL_IPMASQ={_word(ipmasq)}\n",
    )


def write_docker_options(path: Path, subnet: IPv4Network, mtu: int, *, ipmasq: bool) -> None:
    """Write the options for dockerd; arguments as of `docker_opts.options`.

    Errors: StoreError.
    """
    given = options(subnet, mtu, ipmasq=ipmasq)
    lines = [f'DOCKER_OPT_{name}="{option}"\n' for name, option in given.items()]
    _replace(path, "".join(lines) + f'DOCKER_OPTS=" {" ".join(given.values())}"\n')


def _word(flag: bool) -> str:
    return "true" if flag else "false"


def _replace(path: Path, text: str) -> None:
    """Put a file in the place of another at once, readable for all, as readers expect it."""
    new = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
