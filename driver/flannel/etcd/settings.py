"""The settings for etcd: its endpoints, prefix and credentials. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from driver.errors import BadRequest

DEFAULT_PREFIX = "/coreos.com/network"
DEFAULT_PORT = 2379


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One member of etcd."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """The settings for etcd, checked. Their repr does not show the password."""

    endpoints: tuple[Endpoint, ...]
    prefix: str = DEFAULT_PREFIX
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def unguarded(self) -> tuple[Endpoint, ...]:
        """The endpoints that let anybody write, as far as the settings show.

        With a user name, etcd has a login; with a client certificate, it may ask everybody for one.
        """
        if self.username:
            return ()
        return tuple(e for e in self.endpoints if not (e.tls and self.certfile))

    @classmethod
    def read(  # noqa: PLR0913 - one argument a setting
        cls,
        endpoints: str,
        prefix: str = "",
        *,
        cafile: str = "",
        certfile: str = "",
        keyfile: str = "",
        username: str = "",
        password: str = "",
    ) -> EtcdSettings:
        """Return the settings of flanneld's variables; "" is not set.

        Shape:  `endpoints` "http://a:2379,https://b:2379".
        Errors: BadRequest naming the setting, the value and what is allowed.
        """
        found = tuple(_endpoint(text.strip()) for text in endpoints.split(",") if text.strip())
        if not found:
            raise BadRequest("FLANNELD_ETCD_ENDPOINTS names no endpoint")
        if bool(certfile) != bool(keyfile):
            raise BadRequest(
                "FLANNELD_ETCD_CERTFILE and FLANNELD_ETCD_KEYFILE go together; one is missing"
            )
        if bool(username) != bool(password):
            raise BadRequest(
                "FLANNELD_ETCD_USERNAME and FLANNELD_ETCD_PASSWORD go together; one is missing"
            )
        return cls(
            found,
            _prefix(prefix or DEFAULT_PREFIX),
            _file(cafile),
            _file(certfile),
            _file(keyfile),
            username,
            password,
        )


def _endpoint(text: str) -> Endpoint:
    """Return an endpoint; an error does not quote one that may hold a password."""
    name = "FLANNELD_ETCD_ENDPOINTS"
    if "@" in text:
        raise BadRequest(
            f"{name}: an endpoint must not hold a user name; set FLANNELD_ETCD_USERNAME"
        )
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise BadRequest(f"{name}: {text!r} is not a URL like http://192.0.2.1:2379") from None
    if not _is_plain(parts):
        raise BadRequest(f"{name}: {text!r} is not a URL like http://192.0.2.1:2379")
    return Endpoint(parts.hostname or "", port, parts.scheme == "https")


def _is_plain(parts: SplitResult) -> bool:
    """Whether a URL is a scheme, a host and perhaps a port, and nothing else."""
    rest = parts.path.strip("/") or parts.query or parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not rest


def _prefix(text: str) -> str:
    """Return a prefix as flannel has it: a slash in front, none doubled, none at the end."""
    parts = [part for part in text.split("/") if part]
    if not parts or {".", ".."} & set(parts):
        raise BadRequest(f"FLANNELD_ETCD_PREFIX {text!r} is not a path like {DEFAULT_PREFIX}")
    return "/" + "/".join(parts)


def _file(text: str) -> Path | None:
    return Path(text) if text else None
