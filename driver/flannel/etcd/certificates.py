"""The TLS files for etcd, checked before use and read again after failures.

Of a bad file gRPC would only say that the handshake failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from driver.errors import Unavailable
from driver.files import read_file
from driver.flannel.etcd.settings import EtcdSettings


@dataclass(frozen=True, slots=True)
class Certificates:
    """The contents of the files; None if no file is set."""

    authority: bytes | None
    own: bytes | None
    key: bytes | None = field(repr=False)

    @classmethod
    def read(cls, settings: EtcdSettings) -> Certificates:
        """Return what the files hold now.

        Errors: Unavailable naming the setting, the file and what is wrong.
        """
        return cls(
            _content("FLANNELD_ETCD_CAFILE", settings.cafile),
            _content("FLANNELD_ETCD_CERTFILE", settings.certfile),
            _content("FLANNELD_ETCD_KEYFILE", settings.keyfile),
        )

    def check(self, settings: EtcdSettings) -> None:
        """Check that they are good for TLS. Errors: Unavailable, as `read`."""
        import ssl  # noqa: PLC0415 - etcd without TLS needs none

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.authority is not None:
                context.load_verify_locations(cadata=self.authority.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            raise Unavailable(
                f"FLANNELD_ETCD_CAFILE {settings.cafile} holds no certificate in PEM form"
            ) from None
        try:
            if settings.certfile and settings.keyfile:
                context.load_cert_chain(settings.certfile, settings.keyfile, lambda: "")
        except (OSError, ValueError):
            raise Unavailable(
                f"FLANNELD_ETCD_CERTFILE {settings.certfile} and FLANNELD_ETCD_KEYFILE "
                f"{settings.keyfile} are not a certificate and its key in PEM form, without a "
                "password"
            ) from None


class CertificateFiles:
    """The certificates in the files, or the last good ones while the files are bad."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._good: Certificates | None = None

    def current(self) -> Certificates:
        """Return the certificates to use; a file being written must not end a connection.

        Errors: Unavailable if there were no good ones yet.
        """
        try:
            found = Certificates.read(self._settings)
            if found != self._good:
                found.check(self._settings)
                self._good = found
        except Unavailable:
            if self._good is None:
                raise
        return self._good


def _content(name: str, path: Path | None) -> bytes | None:
    try:
        return read_file(path) if path else None
    except OSError as error:
        raise Unavailable(
            f"{name} {path} cannot be read: {error.strerror}; put the file there; it is tried "
            "again every few seconds"
        ) from None
