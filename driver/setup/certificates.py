"""Makes the certificates for an etcd that only the hosts of one flannel network can use.

`openssl` makes them: EC keys on P-256. The common name of a client is its user in etcd.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from driver.errors import HostError
from driver.setup.commands import outcome, run

DAYS = "3650"
CONFIG = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = {addresses}
[client]
extendedKeyUsage = clientAuth
"""
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate to be made: its file name without the ending, common name and kind."""

    name: str
    common_name: str
    kind: str


AUTHORITY = Certificate("ca", "docker-flannel etcd authority", "authority")
SERVER = Certificate("server", "etcd", "server")
ROOT = Certificate("root", "root", "client")
CLIENT = Certificate("client", "flannel", "client")
ALL = (AUTHORITY, SERVER, ROOT, CLIENT)
FILES = tuple(f"{c.name}.{ending}" for c in ALL for ending in ("pem", "key"))


def make(folder: Path, addresses: tuple[IPv4Address, ...]) -> bool:
    """Make those that are missing; return whether any was.

    A certificate of the server that lacks one of these addresses is made anew. Without the
    authority, all are. The folder has the mode 0700, each file 0600. Each file appears as a whole;
    a key comes before its certificate.
    Errors: HostError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        anew = not _there(folder, AUTHORITY)
        missing = [c for c in ALL if anew or not _there(folder, c)]
        if SERVER not in missing and not _named(folder).issuperset(map(str, addresses)):
            missing.append(SERVER)
        if missing:
            _make(folder, missing, addresses)
    except OSError as error:
        raise HostError(f"{folder} cannot be written: {error.strerror}") from error
    return bool(missing)


def _there(folder: Path, wanted: Certificate) -> bool:
    return all((folder / f"{wanted.name}.{ending}").exists() for ending in ("pem", "key"))


def _named(folder: Path) -> set[str]:
    """Return the addresses in the server's certificate; none if it cannot be read."""
    show = ("x509", "-noout", "-ext", "subjectAltName", "-in", str(folder / "server.pem"))
    return set(re.findall(r"IP Address:([0-9.]+)", outcome("openssl", *show)[1]))


def _make(folder: Path, missing: list[Certificate], addresses: tuple[IPv4Address, ...]) -> None:
    work = folder / "making"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir(mode=0o700)
    old = os.umask(0o077)
    try:
        named = ", ".join(f"IP:{address}" for address in addresses)
        (work / "openssl.cnf").write_text(CONFIG.format(addresses=named))
        for wanted in missing:
            _issue(work, folder, wanted)
            # a certificate of before does not go with the new key
            (folder / f"{wanted.name}.pem").unlink(missing_ok=True)
            for ending in ("key", "pem"):
                (work / f"{wanted.name}.{ending}").replace(folder / f"{wanted.name}.{ending}")
    finally:
        os.umask(old)
        shutil.rmtree(work, ignore_errors=True)


def _issue(work: Path, folder: Path, wanted: Certificate) -> None:
    name, subject = wanted.name, ("-subj", f"/CN={wanted.common_name}")
    config = ("-config", "openssl.cnf")
    if wanted is AUTHORITY:
        run("openssl", "req", "-x509", *config, *KEY, *subject, "-days", DAYS, "-extensions",
            "authority", "-keyout", "ca.key", "-out", "ca.pem", cwd=work)  # fmt: skip
        return
    run("openssl", "req", *config, *KEY, *subject,
        "-keyout", f"{name}.key", "-out", f"{name}.csr", cwd=work)  # fmt: skip
    run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", str(folder / "ca.pem"), "-CAkey",
        str(folder / "ca.key"), "-CAcreateserial", "-CAserial", "ca.srl", "-days", DAYS, "-sha256",
        "-extfile", "openssl.cnf", "-extensions", wanted.kind, "-out", f"{name}.pem",
        cwd=work)  # fmt: skip
