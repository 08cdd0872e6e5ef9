"""Puts the plugin's parts together and starts its threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from wsgiref.types import WSGIApplication

from driver.api.orphans import Docker, OrphanNetworks
from driver.config import Config
from driver.core.dataplane import Dataplane
from driver.core.flows import Forgetful
from driver.core.loop import Loop
from driver.core.passes import Report
from driver.core.reconciler import Reconciler
from driver.docker.engine import Engine, dockerd
from driver.docker.given_up import GivenUp
from driver.docker.naming import KnownNames
from driver.errors import HostError
from driver.flannel import flanneld
from driver.flannel.etcd import exposure
from driver.flannel.local_source import LocalSource
from driver.host import underlay
from driver.host.announce import Announcer
from driver.host.conntrack import Conntrack
from driver.host.firewall import iptables_variants
from driver.host.firewall.forward_gate import ForwardGates
from driver.host.firewall.nft_generation import has_nf_tables
from driver.host.flanneld_probe import FlanneldProbe
from driver.host.journal import NAME, SqliteJournal
from driver.host.links import Links
from driver.host.loopback import LoopbackGuards
from driver.host.netlink.monitor import Monitor
from driver.host.overlay import OverlayAdapter
from driver.host.port_sockets import PortSockets
from driver.host.sandbox import Sandboxes
from driver.host.servers import Servers
from driver.host.survey import HostSurvey
from driver.model.interfaces import Firewall, Source
from driver.model.records import Overlay
from driver.setup import in_force
from driver.setup.exposed_secrets import secrets_shown
from driver.setup.sources import Sources

log = logging.getLogger(__name__)


def build(config: Config) -> Reconciler:
    """Put the parts together, make the boot pass, start the threads.

    Errors: StoreError, and whatever an import raises; nothing is left open.
    """
    with ExitStack() as undo:
        core = _assembled(config, undo)
        undo.pop_all()
    return core


def application(config: Config, core: Reconciler, sources: Sources) -> WSGIApplication:
    """Return what answers Docker's calls; it is loaded here, once the host is as it should be.

    From now on containers can start: those that Docker gave up on do.
    """
    from driver.handlers import create_app  # noqa: PLC0415

    names = KnownNames(Engine().names, dockerd)
    app = create_app(
        core,
        require_ipam=config.require_ipam,
        problems=lambda: (*sources.faults, *secrets_shown()),
        warnings=partial(exposure.warnings, config.etcd, ours=config.etcd_from_containers),
        settings=lambda state: in_force.document(sources, (config, state)),
        names=names,
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(names)
    _thread("docker", names.run)

    def tell(done: tuple[str, ...]) -> None:
        core.history.reports.append(Report(core.clock(), adopted=done))

    _thread("given-up", GivenUp(Engine(), dockerd, tell).run)
    return app


def _assembled(config: Config, undo: ExitStack) -> Reconciler:
    """Do what `build` does; `undo` gets what is to be closed after a failure."""
    store, sockets = SqliteJournal(config.state_dir / NAME), PortSockets()
    undo.callback(store.close)
    monitor = Monitor()
    firewall = _firewall(_chosen(config.firewall))
    links = Links(monitor, forwards=config.ip_forward)
    stop, probe = threading.Event(), FlanneldProbe()
    undo.callback(stop.set)
    undo.callback(probe.close)
    guards, sandboxes = LoopbackGuards(), Sandboxes()
    servers, external = _servers(config), None
    if config.follows_etcd:
        iface = config.iface or None
        external = partial(underlay.external, iface=iface, public_ip=config.public_ip)
    survey = HostSurvey(links, (guards, sandboxes), firewall, probe, servers, external)
    source = _source(config, lambda: core, probe, stop)
    dataplane = Dataplane([
        OverlayAdapter(monitor),
        links,
        guards,
        Announcer(),
        sandboxes,
        sockets,
        Forgetful(firewall, Conntrack()),
        ForwardGates(),
    ])  # fmt: skip
    undo.callback(dataplane.close)
    core = Reconciler(store, dataplane, survey, source)
    loop = Loop(core)
    loop.boot()
    if servers.names:
        _thread("names", lambda: servers.run(stop))
    _thread("leftovers", lambda: _clear_others(firewall.name))
    _thread("passes", lambda: loop.run(stop))
    _thread("events", lambda: links.watch(loop.links_changed, stop, core.set_sandbox_addresses))
    orphans = OrphanNetworks(core, Docker(dockerd, Engine().networks, links.links))
    _thread("orphans", lambda: orphans.run(stop))
    links.prepare()
    return core


def _servers(config: Config) -> Servers:
    endpoints = config.etcd.endpoints if config.etcd else ()
    closed = [] if config.etcd_from_containers else [(e.host, e.port) for e in endpoints]
    return Servers([e.host for e in endpoints], closed=closed)


def _firewall(name: str) -> Firewall:
    """Return a backend of the firewall; only its own libraries are loaded."""
    if name == "nft":
        from driver.host.firewall.nft import NftFirewall  # noqa: PLC0415

        return NftFirewall()
    from driver.host.firewall.iptables import IptablesFirewall  # noqa: PLC0415

    return IptablesFirewall(name.removeprefix("iptables-"))


def _chosen(setting: str) -> str:
    if setting == "nft" or (setting == "auto" and has_nf_tables()):
        return "nft"
    return f"iptables-{iptables_variants.chosen()}"


def _clear_others(used: str) -> None:
    """Remove what other backends left behind if the setting was changed."""
    for failure in clear_firewalls(used):
        log.warning("rules that an earlier run may have left stay: %s", failure)


def clear_firewalls(used: str = "") -> list[str]:
    """Remove what all backends but the used one made; return the failures."""
    failures = []
    found = {f"iptables-{variant}" for variant in {"legacy"} | iptables_variants.variants()}
    found |= {"nft"} if has_nf_tables() else set()
    for name in sorted(found - {used}):
        try:
            with closing(_firewall(name)) as other:
                other.clear()
        except (HostError, OSError) as error:  # OSError: without libnftables
            failures.append(f"firewall {name}: {error}")
    return failures


def _source(
    config: Config, core: Callable[[], Reconciler], probe: FlanneldProbe, stop: threading.Event
) -> Source:
    """Return the lease's source; gRPC is loaded only if etcd is used."""
    if config.etcd is None or not config.follows_etcd:
        return LocalSource(config.lease, config.network, config.subnet_len, config.subnet_file)
    from driver.flannel.etcd.client import Etcd  # noqa: PLC0415
    from driver.flannel.etcd_source import EtcdSource, Settings  # noqa: PLC0415
    from driver.flannel.lease_types import ThisHost, users  # noqa: PLC0415
    from driver.flannel.membership import Membership, MembershipStatus  # noqa: PLC0415

    etcd, prefix = Etcd(config.etcd), config.etcd.prefix

    def follow(own: ThisHost, known: MembershipStatus) -> Membership:
        member = Membership(
            etcd,
            prefix,
            own,
            known,
            in_use=lambda: users(core().state),
            changed=lambda: core().peers_changed(),
            flanneld_sign=lambda overlay: _beside(probe, overlay),
        )
        _thread("etcd", lambda: member.run(stop))
        return member

    auto = config.lease == "auto"
    return EtcdSource(follow, Settings(config.public_ip, config.subnet_file, auto))


def _beside(probe: FlanneldProbe, overlay: Overlay) -> str:
    """Return a sentence if a flanneld on this host has this network now, else ""."""
    what = probe.look().sign(overlay)
    return flanneld.has_it(what) if what else ""


def _thread(name: str, body: Callable[[], None]) -> None:
    threading.Thread(target=body, name=name, daemon=True).start()
