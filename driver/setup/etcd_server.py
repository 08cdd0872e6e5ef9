"""Debian's etcd as the etcd of one flannel network: its settings, and whether it is free for that.

The unit of the package etcd-server stays as it is: a drop-in and an environment file add to it. So
no file of the package is edited, and taking both away puts etcd back. etcd runs as its own user:
systemd hands it the key, which only root can read.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from driver.errors import Conflict, FlannelError, HostError
from driver.files import text_of, write_file
from driver.flannel.etcd.settings import DEFAULT_PORT, EtcdSettings
from driver.setup import certificates
from driver.setup.services import Packages, Services

UNIT = "etcd.service"
PACKAGE = "etcd-server"
NAME = "docker-flannel"
PEER_PORT = 2380
UNTOUCHED = 1  # the revision of an etcd that nobody ever wrote to
LIMIT_S = 1.0
ENDPOINTS = "pass --etcd-endpoints to use it, or another one"

DROP_IN = """\
# Written by `docker-flannel init`; `docker-flannel leave` removes it.
[Unit]
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
EnvironmentFile={folder}/etcd.env
LoadCredential=ca.pem:{folder}/ca.pem
LoadCredential=server.pem:{folder}/server.pem
LoadCredential=server.key:{folder}/server.key
Environment=ETCD_TRUSTED_CA_FILE=%d/ca.pem ETCD_PEER_TRUSTED_CA_FILE=%d/ca.pem
Environment=ETCD_CERT_FILE=%d/server.pem ETCD_PEER_CERT_FILE=%d/server.pem
Environment=ETCD_KEY_FILE=%d/server.key ETCD_PEER_KEY_FILE=%d/server.key
Restart=always
RestartSec=1
"""
ENVIRONMENT = """\
# Written by `docker-flannel init`; `docker-flannel leave` removes it.
ETCD_NAME={name}
ETCD_DATA_DIR={data}
ETCD_LISTEN_CLIENT_URLS=https://{listen}:{port}
ETCD_ADVERTISE_CLIENT_URLS=https://{public}:{port}
ETCD_CLIENT_CERT_AUTH=true
ETCD_LISTEN_PEER_URLS=https://127.0.0.1:{peer_port}
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://127.0.0.1:{peer_port}
ETCD_INITIAL_CLUSTER={name}=https://127.0.0.1:{peer_port}
ETCD_PEER_CLIENT_CERT_AUTH=true
ETCD_ENABLE_GRPC_GATEWAY=false
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are; tests have other places."""

    folder: Path = Path("/etc/docker-flannel")
    drop_in: Path = Path("/etc/systemd/system/etcd.service.d/docker-flannel.conf")
    defaults: Path = Path("/etc/default/etcd")
    data: Path = Path("/var/lib/etcd")
    lock: Path = Path("/run/docker-flannel-setup.lock")

    @property
    def environment(self) -> Path:
        """The environment file, whose presence says that this etcd is ours."""
        return self.folder / "etcd.env"

    @property
    def own_data(self) -> Path:
        """The folder of our etcd's data; the package's own is beside it."""
        return self.data / NAME


class EtcdServer:
    """The etcd of this machine."""

    def __init__(
        self,
        services: Services,
        packages: Packages,
        place: Place = Place(),
        listens: Callable[[IPv4Address, int], bool] | None = None,
    ) -> None:
        self._services, self._packages, self._place = services, packages, place
        self._listens = listens or _listens

    @property
    def ours(self) -> bool:
        """Whether `set_up` has begun here."""
        return self._place.environment.exists()

    @property
    def installed(self) -> bool:
        """Whether the package is installed. Errors: HostError."""
        return bool(self._services.files(UNIT))

    def state(self) -> dict[str, bool]:
        """Return whether its service is "active" and "enabled". Errors: HostError."""
        active, enabled = self._services.active(UNIT), self._services.enabled(UNIT)
        return {"active": active, "enabled": enabled}

    def settings(self, public: IPv4Address, prefix: str, user: str) -> EtcdSettings:
        """Return how one of its users reaches it: "client" or "root"."""
        folder = self._place.folder
        return EtcdSettings.read(
            f"https://{public}:{DEFAULT_PORT}",
            prefix,
            cafile=str(folder / "ca.pem"),
            certfile=str(folder / f"{user}.pem"),
            keyfile=str(folder / f"{user}.key"),
        )

    def check_free(self, listen: IPv4Address, revision: Callable[[], int]) -> None:
        """Check that nobody uses etcd on this machine.

        `revision` returns that of the etcd which the package starts. Errors: Conflict, HostError.
        """
        if self.ours:
            return
        own, *more = self._services.files(UNIT) or (None,)
        changed = [file for file in (own, *more) if file and not _from_package(file)]
        if changed:
            raise Conflict(f"{changed[0]} shows that etcd is used here already: {ENDPOINTS}")
        if _has_settings(self._place.defaults):
            raise Conflict(
                f"{self._place.defaults} has settings, so etcd is used here already: {ENDPOINTS}"
            )
        if own and self._services.active(UNIT):
            self._check_untouched(revision)
            return
        if (self._place.data / "default" / "member").exists():
            raise Conflict(
                f"etcd on this host has data in {self._place.data / 'default'}, though it does not "
                f"run: {ENDPOINTS}; if nobody needs the data, remove the folder"
            )
        for at in ((listen, DEFAULT_PORT), (IPv4Address("127.0.0.1"), PEER_PORT)):
            if self._listens(*at):
                raise Conflict(
                    f"another program listens on {at[0]}:{at[1]}; if it is etcd, {ENDPOINTS}"
                )

    def _check_untouched(self, revision: Callable[[], int]) -> None:
        try:
            touched = revision() != UNTOUCHED
        except FlannelError as error:
            raise Conflict(f"{UNIT} runs here, and {error}: {ENDPOINTS}") from None
        if touched:
            raise Conflict(f"the etcd on this host holds data of others: {ENDPOINTS}")

    def set_up(self, listen: IPv4Address, public: IPv4Address, say: Callable[[str], None]) -> None:
        """Make certificates, write its settings, install it, and start it with them.

        Errors: HostError; a second run completes it.
        """
        place = self._place
        addresses = tuple(dict.fromkeys((public, listen, IPv4Address("127.0.0.1"))))
        changed = certificates.make(place.folder, addresses)
        if changed:
            say(f"made certificates for etcd in {place.folder}")
        changed |= _write(place.environment, self._environment(listen, public))
        changed |= _write(place.drop_in, DROP_IN.format(folder=place.folder), 0o644)
        if not self.installed:
            say(f"installing {PACKAGE} with apt-get")
            self._packages.install(PACKAGE)  # which also starts it, with these settings
        if changed or not self._services.active(UNIT):
            say(f"starting {UNIT}, which listens on {listen}:{DEFAULT_PORT}")
            self.restart()

    def restart(self) -> None:
        """Start it with the settings as they are now, now and at each boot. Errors: HostError."""
        self._services.reload()
        self._services.enable(UNIT)
        self._services.restart(UNIT)

    def _environment(self, listen: IPv4Address, public: IPv4Address) -> str:
        return ENVIRONMENT.format(
            name=NAME,
            data=self._place.own_data,
            listen=listen,
            public=public,
            port=DEFAULT_PORT,
            peer_port=PEER_PORT,
        )

    def remove(self, before: Mapping[str, bool]) -> None:
        """Put etcd back to a `state` of before: its own data goes, the package stays.

        Errors: HostError; a second run completes it.
        """
        if self.installed:
            self._services.stop(UNIT)
        try:
            self._place.drop_in.unlink(missing_ok=True)
            if self._place.own_data.exists():
                shutil.rmtree(self._place.own_data)
            for name in certificates.FILES:
                (self._place.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"etcd's files cannot be removed: {error}") from error
        if self.installed:
            self._services.reload()
            if not before["enabled"]:
                self._services.disable(UNIT)
            if before["active"]:
                self._services.restart(UNIT)
        self._place.environment.unlink(missing_ok=True)  # last: until then it is ours


def _from_package(file: Path) -> bool:
    """Whether the package brought a file of the unit, or it is one for all services."""
    made_here = file.parts[1] in ("etc", "run")
    return not made_here or file.parent.name == "service.d"


def _has_settings(file: Path) -> bool:
    lines = map(str.strip, text_of(file).splitlines())
    return any(line and not line.startswith("#") for line in lines)


def _listens(address: IPv4Address, port: int) -> bool:
    try:
        socket.create_connection((str(address), port), LIMIT_S).close()
    except OSError:
        return False
    return True


def _write(path: Path, text: str, mode: int = 0o600) -> bool:
    """Write a file; return whether that changed it. Errors: HostError."""
    try:
        if text_of(path) == text:
            return False
        write_file(path, text.encode(), mode)
    except OSError as error:
        raise HostError(f"{path} cannot be written: {error.strerror}") from error
    return True
