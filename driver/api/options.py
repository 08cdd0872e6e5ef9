"""The options of `docker network create`, each with its check. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypedDict, get_args

from driver.api.body import ENABLE_IPV4, Body
from driver.errors import BadRequest
from driver.model.records import HIGHEST_MTU, LOWEST_MTU, Publisher

MTU = "com.docker.network.driver.mtu"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
INTERFACE = "com.docker.network.container_iface_prefix"
SIZE = "flannel.size"
PUBLISH = "flannel.publish"
SOURCES = "flannel.sources"
PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,11}")
KNOWN = (MTU, MASQUERADE, INTERFACE, SIZE, PUBLISH, SOURCES)
PUBLISHERS: dict[str, Publisher] = {name: name for name in get_args(Publisher)}
NUMBER = re.compile(r"[0-9]{1,5}")


class NetworkOptions(TypedDict):
    """What the `-o` options decide about a network."""

    mtu: int
    masquerade: bool
    interface_prefix: str
    publish: Publisher
    any_source: bool


def network_options(options: Body, lease_mtu: int) -> NetworkOptions:
    """Read the `-o` options; `lease_mtu`, in bytes, is the default.

    Errors: BadRequest naming the option, and the valid ones where it is unknown.
    """
    # Docker 28 repeats its own IPv4 option here, as it was typed
    given = _known(options, "-o", KNOWN, (ENABLE_IPV4,))
    mtu = given.get(MTU, str(lease_mtu))
    if not NUMBER.fullmatch(mtu) or not LOWEST_MTU <= int(mtu) <= HIGHEST_MTU:
        raise BadRequest(f"option {MTU} {mtu!r} is not a number from {LOWEST_MTU} to {HIGHEST_MTU}")
    prefix = given.get(INTERFACE, "eth")
    if not PREFIX.fullmatch(prefix):
        raise BadRequest(
            f"option {INTERFACE} {prefix!r} is not a letter and up to 11 letters, digits, _ or -"
        )
    masquerade = given.get(MASQUERADE, "true")
    if masquerade not in ("true", "false"):
        raise BadRequest(f"option {MASQUERADE} {masquerade!r} is not true or false")
    publish = given.get(PUBLISH, "flannel")
    if publish not in PUBLISHERS:
        raise BadRequest(f"option {PUBLISH} {publish!r} is not {' or '.join(PUBLISHERS)}")
    sources = given.get(SOURCES)
    if sources not in (None, "any"):
        raise BadRequest(
            f"option {SOURCES} {sources!r} is not any; leave it out where containers send with "
            "their own addresses"
        )
    return NetworkOptions(
        mtu=int(mtu),
        masquerade=masquerade == "true",
        interface_prefix=prefix,
        publish=PUBLISHERS[publish],
        any_source=sources == "any",
    )


def ipam_prefix(options: Body) -> int | None:
    """Read the `--ipam-opt` options: the prefix length of the block, None when not given.

    Errors: BadRequest.
    """
    return _prefix(_known(options, "--ipam-opt", (SIZE,)))


def block_prefix(options: Body) -> int | None:
    """Read the same from the `-o` options, for a network without an IPAM call to us.

    Errors: BadRequest.
    """
    return _prefix(options.texts())


def _prefix(given: Mapping[str, str]) -> int | None:
    size = given.get(SIZE)
    if size is None:
        return None
    digits = size.removeprefix("/")
    if not NUMBER.fullmatch(digits):
        raise BadRequest(f"option {SIZE} {size!r} is not a prefix length like /26")
    return int(digits)


def _known(
    options: Body, flag: str, allowed: tuple[str, ...], silent: tuple[str, ...] = ()
) -> dict[str, str]:
    given = options.texts()
    for name in given:
        if name not in allowed + silent:
            raise BadRequest(
                f"option {flag} {name!r} is unknown; these are known: {', '.join(allowed)}"
            )
    return given
