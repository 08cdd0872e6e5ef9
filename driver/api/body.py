"""Decode Docker's JSON bodies. Every error names the field and the value.

Unknown fields are ignored, since a newer Docker may add some; unknown options are refused by name,
since somebody typed them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from driver.core.publish import Binding
from driver.errors import NO_BODY, BadRequest
from driver.model.records import ANY, PROTOCOLS

ID = re.compile(r"[a-z0-9]{12,64}")
PATH = re.compile(r"/[^\0\ud800-\udfff]+")
POOL_ID = re.compile(r"[0-9a-z./-]{1,100}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
Reply = dict[str, Any]

NO_SPACE = "null"  # of Docker's IPAM driver that assigns nothing
LAST_PORT = 65535
SHOWN = 80  # characters of a refused value

GENERIC = "com.docker.network.generic"
PORTMAP = "com.docker.network.portmap"
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
INTERNAL = "com.docker.network.internal"
ADDRESS_TYPE = "RequestAddressType"
GATEWAY_TYPE = "com.docker.network.gateway"
ENDPOINT_NAME = "com.docker.network.endpoint.name"


class Body:
    """One decoded JSON object, read field by field.

    Errors of every reader: BadRequest naming the field, the value and what is allowed.
    """

    def __init__(self, fields: Mapping[str, Any], where: str = "") -> None:
        self._fields, self._where = fields, where

    @classmethod
    def decode(cls, raw: bytes) -> Body:
        """Read a request's bytes.

        An empty body is an error: dockerd sends one when it repeats a call that broke off, and read
        as `{}` the call would seem done.
        """
        if not raw:
            raise BadRequest(f"{NO_BODY}; a JSON object is needed")
        try:
            fields = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the request is no JSON: {error}") from None
        if not isinstance(fields, dict):
            raise BadRequest(f"the request is a JSON {type(fields).__name__}, not an object")
        return cls(fields)

    def text(self, name: str, *, needed: bool = True) -> str:
        """Return a string; "" if it is absent or null and not needed."""
        value = self._fields.get(name)
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or (needed and not value):
            raise self._bad(name, value, "a text")
        return value

    def object_id(self, name: str) -> str:
        """Return an id of Docker's that is safe in names of kernel objects."""
        return self._matching(name, ID, "12 to 64 lower-case letters and digits")

    def pool_id(self) -> str:
        """Return a pool's id, as RequestPool made it."""
        return self._matching("PoolID", POOL_ID, "an id that RequestPool gave")

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return self._matching(name, PATH, "an absolute path")

    def mac(self, name: str) -> str:
        """Return a MAC address in lower case, "" when absent or empty."""
        value = self.text(name, needed=False).lower()
        if value and not MAC.fullmatch(value):
            raise self._bad(name, value, "a MAC address like 02:42:0a:02:00:05")
        return value

    def flag(self, name: str, *, absent: bool = False) -> bool:
        """Return a boolean; `absent` when absent or null."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._bad(name, value, "true or false")
        return absent if value is None else value

    def number(self, name: str) -> int:
        """Return a whole number."""
        value = self._fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._bad(name, value, "a whole number")
        return value

    def part(self, name: str) -> Body:
        """Return an object, empty when absent or null."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._bad(name, value, "an object")
        return Body(value or {}, f"{self._where}{name}.")

    def parts(self, name: str) -> list[Body]:
        """Return a list of objects, empty when absent or null."""
        value = self._fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._bad(name, value, "a list of objects")
        return [Body(item, f"{self._where}{name}.") for item in value]

    def texts(self) -> dict[str, str]:
        """Return the whole object as text by name, as `-o` options come."""
        for name in self._fields:
            self.text(name, needed=False)
        return {name: value or "" for name, value in self._fields.items()}

    def address(self, name: str) -> IPv4Address | None:
        """Return an IPv4 address, None when absent or empty."""
        value = self.text(name, needed=False)
        try:
            return IPv4Address(value) if value else None
        except AddressValueError:
            raise self._bad(name, value, "an IPv4 address") from None

    def interface(self, name: str) -> IPv4Interface | None:
        """Return an IPv4 address with its prefix length, None when absent or empty."""
        value = self.text(name, needed=False)
        try:
            return IPv4Interface(value) if value else None
        except ValueError:
            raise self._bad(name, value, "an IPv4 address like 10.2.0.5/26") from None

    def prefix(self, name: str) -> IPv4Network | None:
        """Return an IPv4 prefix without host bits, None when absent or empty."""
        value = self.text(name, needed=False)
        try:
            return IPv4Network(value) if value else None
        except ValueError as error:
            raise BadRequest(
                f"{self._where}{name} {value[:SHOWN]!r} is no IPv4 prefix like 10.2.0.0/26: {error}"
            ) from None

    def _matching(self, name: str, pattern: re.Pattern[str], allowed: str) -> str:
        value = self.text(name)
        if not pattern.fullmatch(value):
            raise self._bad(name, value, allowed)
        return value

    def _bad(self, name: str, value: object, allowed: str) -> BadRequest:
        field = f"{self._where}{name if name.isprintable() else ascii(name)}"
        if value is None:
            return BadRequest(f"{field} is missing; it is {allowed}")
        shown = json.dumps(value)
        return BadRequest(f"{field} {shown[:SHOWN]}{'…' * (len(shown) > SHOWN)} is not {allowed}")


Range = Callable[[], tuple[int, int]]


def bindings(options: Body, ephemeral: Range) -> list[Binding]:
    """Read what `-p` asked for; without a host port, it is any one of `ephemeral`.

    Shape: "com.docker.network.portmap": [{Proto, IP, Port, HostIP, HostPort, HostPortEnd}], or
           nothing, when dockerd cleans up after a crash.
    Errors: BadRequest, also for an IPv6 host address, since containers have no IPv6.
    """
    return [_binding(item, ephemeral) for item in options.parts(PORTMAP)]


def _binding(item: Body, ephemeral: Range) -> Binding:
    number = item.number("Proto")
    if number not in PROTOCOLS:
        allowed = ", ".join(PROTOCOLS.values())
        raise BadRequest(f"protocol number {number} cannot be published; these can: {allowed}")
    first, port = item.number("HostPort"), item.number("Port")
    last = item.number("HostPortEnd") or first
    host = item.text("HostIP", needed=False)
    if ":" in host:
        raise BadRequest(
            f"host address {host[:SHOWN]!r} is IPv6, and the network has no IPv6; publish on an "
            "IPv4 address"
        )
    if not 1 <= port <= LAST_PORT or not 0 <= first <= last <= LAST_PORT:
        raise BadRequest(f"port {first}-{last}:{port} is not within 1 to {LAST_PORT}")
    if not first:
        first, last = ephemeral()
    return Binding(PROTOCOLS[number], item.address("HostIP") or ANY, first, last, port)
