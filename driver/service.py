"""The running plugin: one gunicorn worker that owns the state, its threads, and the socket."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from driver.config import Config
from driver.conntrack import Conntrack
from driver.errors import Conflict, StoreError, Unavailable
from driver.etcd import Etcd
from driver.etcd_leases import EtcdLeases
from driver.firewall import Nft
from driver.flows import Forgetful
from driver.handlers import create_app
from driver.iptables import Iptables
from driver.kernel import Netlink
from driver.leases import Leases, Source
from driver.membership import Membership, Snapshot
from driver.model import External, Facts, Vtep, replace
from driver.reconcile import Reconciler
from driver.sockets import Sockets
from driver.store import Store
from driver.underlay import Underlay
from driver.vtep import Overlays

log = logging.getLogger(__name__)

THREADS = 8
KEEPALIVE_S = 24 * 3600  # dockerd repeats a call with an empty body if we close its connection
STOP_S = 5
PEER = struct.Struct("iII")  # of a socket: process id, 0 in another PID namespace; user; group


class HostSurvey:
    """The facts of the host, gathered from the adapters that know them."""

    def __init__(self, config: Config, netlink: Netlink, nft: Nft, iptables: Iptables) -> None:
        self._netlink, self._nft, self._iptables = netlink, nft, iptables
        self._underlay = Underlay() if config.lease == "etcd" else None
        self._iface, self._public_ip = config.iface or None, config.public_ip
        self._last: External | None = None

    def facts(self) -> Facts:
        """Give what the host has that is not ours."""
        facts = self._netlink.facts()
        return replace(facts, gates=self._iptables.variants(), external=self._external())

    def _external(self) -> External | None:
        if self._underlay is None:
            return None
        try:
            self._last = self._underlay.external(self._iface, self._public_ip)
        except Unavailable as error:
            # a default route that is gone for a moment must not take the overlay down
            log.debug("%s", error)
        return self._last

    def disturbed(self) -> bool:
        """Tell whether somebody changed the firewall; legacy iptables does not show in it."""
        return self._nft.disturbed()

    def links(self) -> frozenset[str]:
        """List our links by name."""
        return self._netlink.links()


class Server(BaseApplication):
    """The gunicorn application: one worker, since two writers would break what is promised."""

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn up."""
        settings: dict[str, Any] = {
            "bind": [f"unix:{path}" for path in self._config.sockets],
            "umask": 0o177,
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "keepalive": KEEPALIVE_S,
            "timeout": 0,
            "graceful_timeout": STOP_S,
            "control_socket_disable": True,
            "loglevel": "warning",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Build the plugin. It runs after the fork: files, sockets and threads live here only.

        A state that cannot be used does not keep the socket away from Docker, which looks for a
        plugin once: every call is answered with what is wrong.
        """
        try:
            core = build(self._config)
        except StoreError as error:
            log.error("%s", error)
            return create_app(error)
        return create_app(core)


def build(config: Config) -> Reconciler:
    """Put the parts together, make the boot pass, start the loop and the listener.

    Errors: StoreError.
    """
    store = Store(config.state_dir / "state.db")
    netlink, nft, iptables = Netlink(), Nft(), Iptables()
    stop = threading.Event()
    source: Source
    if config.lease == "etcd" and config.etcd is not None:
        etcd, prefix = Etcd(config.etcd), config.etcd.prefix

        def follow(vtep: Vtep, known: Snapshot) -> Membership:
            member = Membership(
                etcd,
                prefix,
                vtep,
                known,
                in_use=lambda: bool(core.state.pools),
                changed=core.wake,
            )
            _thread("etcd", lambda: member.run(stop))
            return member

        source = EtcdLeases(follow, config.public_ip, config.subnet_file)
    else:
        source = Leases(config.lease, config.network, config.subnet_len, config.subnet_file)
    core = Reconciler(
        store,
        [Overlays(), netlink, Sockets(), Forgetful(nft, Conntrack()), iptables],
        HostSurvey(config, netlink, nft, iptables),
        source,
    )
    core.attempt()
    _thread("passes", lambda: core.run(stop))
    _thread("events", lambda: netlink.watch(core.links_changed, stop))
    return core


def _thread(name: str, body: Callable[[], None]) -> None:
    threading.Thread(target=body, name=name, daemon=True).start()


def serve(config: Config) -> None:
    """Serve until SIGTERM, which leaves the host as it is.

    Errors: Conflict when another instance is at work, StoreError.
    """
    logging.basicConfig(
        level=config.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    held = _only_one(config.state_dir / "lock")
    for path in config.sockets:
        _refuse_served(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        Server(config).run()
    finally:
        os.close(held)


def _only_one(path: Path) -> int:
    """Take the lock that the one instance on a state folder holds; workers inherit it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"state folder {path.parent} cannot be used: {error}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        who = os.read(held, 100).decode().strip() or "it does not say who it is"
        os.close(held)
        raise Conflict(
            f"another docker-flannel works on {path.parent}; stop it first ({who}), or set "
            "another DOCKER_FLANNEL_STATE_DIR"
        ) from None
    pid = os.getpid()
    os.ftruncate(held, 0)
    os.write(held, b"the managed plugin\n" if pid == 1 else f"process {pid}\n".encode())
    return held


def _refuse_served(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return  # nobody there, or a stale file, which gunicorn replaces
        pid, _, _ = PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    who = f"process {pid}" if pid else "the managed plugin, or in a container"
    raise Conflict(f"another process serves {path}; stop it first ({who}), or set another --socket")
