"""The files of TLS for etcd: read anew whenever it may help, and checked before they are used.

gRPC says no more of a bad file than that there is no handshake. Imports `etcd_settings`, `files`,
`errors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from driver.errors import Unavailable
from driver.files import read_file
from driver.flannel.etcd.settings import EtcdSettings


@dataclass(frozen=True, slots=True)
class Certificates:
    """What is in the files; None where no file is set."""

    authority: bytes | None
    own: bytes | None
    key: bytes | None = field(repr=False)

    @classmethod
    def read(cls, settings: EtcdSettings) -> Certificates:
        """Read the files.

        Errors: Unavailable naming the setting, the file and what is wrong.
        """
        return cls(
            _content("FLANNELD_ETCD_CAFILE", settings.cafile),
            _content("FLANNELD_ETCD_CERTFILE", settings.certfile),
            _content("FLANNELD_ETCD_KEYFILE", settings.keyfile),
        )

    def check(self, settings: EtcdSettings) -> None:
        """See that TLS can be made of them.

        Errors: Unavailable, as `read`.
        """
        import ssl  # noqa: PLC0415 - not for etcd without TLS

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
    """The certificates as they are now, or as they were when they could be used last."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._good: Certificates | None = None

    def current(self) -> Certificates:
        """Return what is to be used; a file that is being written must not end a connection.

        Errors: Unavailable when they could never be used.
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
            f"{name} {path} cannot be read: {error.strerror}; put the file there, it is looked "
            "for every few seconds"
        ) from None
