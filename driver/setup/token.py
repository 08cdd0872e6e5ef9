"""The line that lets a host join: where etcd is, and the certificates for it. Pure.

Whoever has it can write to etcd below the prefix, so it is a secret: no message quotes it.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
import zlib
from dataclasses import asdict, dataclass, field, fields
from urllib.parse import urlsplit

from driver.errors import BadRequest, Unavailable
from driver.flannel.etcd.settings import EtcdSettings

VERSION = 1
START = re.compile(r"dfl(\d{1,9})\.")
LARGEST = 1 << 18  # bytes of JSON
PEM = re.compile(r"-----BEGIN [A-Z ]+-----\s[A-Za-z0-9+/=\s]+-----END [A-Z ]+-----")
WORDS = "`docker-flannel init` on the first host prints the whole token"


@dataclass(frozen=True, slots=True)
class Token:
    """What a token holds, as text; "" is not set. Certificates and key are in PEM form."""

    endpoints: str
    prefix: str
    authority: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)

    def encode(self) -> str:
        """Return the token as one line of letters, digits, `-`, `_` and one `.`."""
        text = json.dumps({name: value for name, value in asdict(self).items() if value})
        packed = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9))
        return f"dfl{VERSION}.{packed.decode().rstrip('=')}"

    @classmethod
    def decode(cls, line: str) -> Token:
        """Read a token; blanks and line breaks that a copy has added do not matter.

        Errors: BadRequest.
        """
        text = "".join(line.split())
        start = START.match(text)
        if start is None:
            raise BadRequest(f"this is no token, which begins with dfl{VERSION}.; {WORDS}")
        if int(start[1]) != VERSION:
            raise BadRequest(
                f"the token is of version {start[1]}, and this docker-flannel reads version "
                f"{VERSION}: install the same version of docker-flannel on both hosts"
            )
        try:
            found = json.loads(_unpacked(text[start.end() :]))
            token = cls(**{f.name: found.get(f.name, "") for f in fields(cls)})
            token._check()
        except (ValueError, RecursionError, zlib.error, AttributeError, BadRequest):
            raise BadRequest(f"the token is cut or damaged: {WORDS}") from None
        return token

    def _check(self) -> None:
        """Errors: ValueError, BadRequest."""
        if not all(isinstance(value, str) and value.isascii() for value in asdict(self).values()):
            raise ValueError
        plain = (self.endpoints, self.prefix, self.username, self.password)
        if not (self.endpoints and self.prefix and all(map(str.isprintable, plain))):
            raise ValueError
        if not all(map(PEM.search, filter(None, (self.authority, self.certificate, self.key)))):
            raise ValueError
        if bool(self.certificate) != bool(self.key):
            raise ValueError
        self.settings()

    def settings(self, cafile: str = "", certfile: str = "", keyfile: str = "") -> EtcdSettings:
        """Return the settings for etcd, with its certificates in these files.

        Errors: BadRequest.
        """
        return EtcdSettings.read(
            self.endpoints,
            self.prefix,
            cafile=cafile if self.authority else "",
            certfile=certfile if self.certificate else "",
            keyfile=keyfile if self.key else "",
            username=self.username,
            password=self.password,
        )

    def check_clock(self, now: float) -> None:
        """Check that the authority's certificate is valid at a Unix time.

        Errors: Unavailable if not; BadRequest if it is no certificate.
        """
        if not self.authority:
            return
        for begin, end in _validity(self.authority):
            if now < ssl.cert_time_to_seconds(begin):
                raise Unavailable(
                    f"the token's certificates are valid from {begin}, and it is {_time(now)} by "
                    "this host's clock: set the clock, or try again then"
                )
            if now > ssl.cert_time_to_seconds(end):
                raise Unavailable(
                    f"the token's certificates were valid until {end}, and it is {_time(now)} by "
                    "this host's clock"
                )

    @property
    def hosts(self) -> str:
        """The addresses and ports of etcd's members, for a message."""
        return ", ".join(urlsplit(str(e)).netloc for e in self.settings().endpoints)


def _unpacked(text: str) -> bytes:
    """Return the JSON; its checksum shows a cut. Errors: ValueError, zlib.error."""
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(raw, LARGEST)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError
    return found


def _validity(authority: str) -> list[tuple[str, str]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError):
        raise BadRequest("the token's CA is no certificate in PEM form") from None
    return [(str(c["notBefore"]), str(c["notAfter"])) for c in context.get_ca_certs()]


def _time(now: float) -> str:
    return time.strftime("%b %e %H:%M:%S %Y GMT", time.gmtime(now))
