"""The plugin, its parts put together: the state, what it is applied to, and the threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from functools import partial

from driver.api.orphans import Docker, OrphanNetworks
from driver.cli import client
from driver.config import SETTINGS, Config
from driver.core.flows import Forgetful
from driver.core.loop import Loop
from driver.core.reconciler import Reconciler
from driver.errors import HostError, Unavailable
from driver.flannel import flanneld
from driver.flannel.etcd import exposure
from driver.flannel.local_source import LocalSource
from driver.host.announce import Announcer
from driver.host.conntrack import Conntrack
from driver.host.exposed_secrets import secrets_shown
from driver.host.firewall import iptables_variants
from driver.host.firewall.forward_gate import ForwardGates
from driver.host.firewall.iptables_legacy_monitor import LegacyFilter
from driver.host.firewall.nft_generation import has_nf_tables
from driver.host.flanneld_probe import FlanneldProbe
from driver.host.journal import NAME, SqliteJournal
from driver.host.links import Links
from driver.host.loopback import LoopbackGuards
from driver.host.netlink.monitor import Monitor
from driver.host.overlay import OverlayAdapter
from driver.host.port_sockets import PortSockets
from driver.host.residents import Residents
from driver.host.sandbox import Sandboxes
from driver.host.servers import Servers
from driver.host.underlay import Underlay
from driver.model.facts import ETCD, External, Facts, Resident
from driver.model.interfaces import Adapter, Firewall, Source
from driver.model.objects import HostObject
from driver.model.records import Overlay, replace

log = logging.getLogger(__name__)


class HostSurvey:
    """The facts of the host, gathered from the adapters that know them."""

    def __init__(
        self,
        config: Config,
        netlink: Links,
        watched: tuple[LoopbackGuards, Sandboxes],
        firewall: Firewall,
        lookout: FlanneldProbe,
    ) -> None:
        self._localhosts, self._sandboxes = watched
        self._netlink, self._firewall, self._legacy = netlink, firewall, LegacyFilter()
        self._residents = Residents()
        self._underlay = Underlay() if config.follows_etcd else None
        self._lookout = lookout
        self.servers = Servers([e.host for e in config.etcd.endpoints] if config.etcd else [])
        closed = config.etcd if not config.etcd_from_containers else None
        self._closed = closed.endpoints if closed else ()
        self._iface, self._public_ip = config.iface or None, config.public_ip
        self._last: External | None = None

    def facts(self) -> Facts:
        """Give what the host has that is not ours."""
        facts = self._netlink.facts()
        return replace(
            facts,
            places=(*facts.places, *((ip, ETCD) for ip in sorted(self.servers.etcd()))),
            resolvers=self.servers.resolvers(),
            etcd=frozenset((ip, e.port) for e in self._closed for ip in self.servers.at(e.host)),
            firewall=self._firewall.name,
            gates=ForwardGates.variants(),
            external=self._external(),
            flanneld=self._lookout.look(),
            guards=self._localhosts.able,
        )

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
        """Tell whether somebody changed the firewall, a setting, a guard or a sandbox."""
        inside, netlink = self._sandboxes.disturbed(), self._netlink.disturbed()
        rules = [self._firewall.disturbed(), self._legacy.disturbed()]
        return any([*rules, netlink, self._localhosts.disturbed(), inside])

    def docker_acts(self) -> None:
        """Take note that Docker has set the host up."""
        self._netlink.docker_acts()

    def look(self, links: Iterable[str]) -> frozenset[HostObject]:
        """Give what some of our links are and carry."""
        return self._netlink.observe_links(links)

    def links(self) -> frozenset[str]:
        """List our links by name."""
        return self._netlink.links()

    def occupied(self) -> frozenset[str]:
        """Name the host ends of our veths whose other end is in another network namespace."""
        return self._residents.occupied()

    def residents(self, host_ends: frozenset[str]) -> tuple[Resident, ...]:
        """Look what is at the other ends of veths, where their sandboxes can be entered."""
        return self._residents.look(host_ends)


def build(config: Config) -> Reconciler:
    """Put the parts together, make the boot pass, start the loop and the listener.

    Errors: StoreError, and whatever a part raises that cannot be loaded; nothing is left open.
    """
    with ExitStack() as undo:
        core = _assembled(config, undo)
        undo.pop_all()
    return core


def _assembled(config: Config, undo: ExitStack) -> Reconciler:
    """Do what `build` says; what is to be closed when that fails is left with `undo`."""
    # sockets make room, which takes no time as long as there is one thread
    store, sockets = SqliteJournal(config.state_dir / NAME), PortSockets()
    undo.callback(store.close)
    news = Monitor()
    firewall = _firewall(_chosen(config.firewall))
    netlink = Links(news, forwards=config.ip_forward)
    stop, lookout = threading.Event(), FlanneldProbe()
    undo.callback(stop.set)
    undo.callback(lookout.close)
    localhosts, sandboxes = LoopbackGuards(), Sandboxes()
    survey = HostSurvey(config, netlink, (localhosts, sandboxes), firewall, lookout)
    source = _source(config, lambda: core, lookout, stop)
    sides: list[Adapter] = [
        OverlayAdapter(news),
        netlink,
        localhosts,
        Announcer(),
        sandboxes,
        sockets,
        Forgetful(firewall, Conntrack()),
        ForwardGates(),
    ]
    for side in sides:
        undo.callback(side.close)
    core = Reconciler(
        store,
        sides,
        survey,
        source,
    )
    core.require_ipam = config.require_ipam
    core.shown = lambda: secrets_shown([s.variable for s in SETTINGS if s.secret])
    core.warnings = partial(exposure.warnings, config.etcd, ours=config.etcd_from_containers)
    loop = Loop(core, survey, source)
    loop.boot()
    if survey.servers.names:
        _thread("names", lambda: survey.servers.run(stop))
    _thread("leftovers", lambda: _clear_others(firewall.name))
    _thread("passes", lambda: loop.run(stop))
    _thread("events", lambda: netlink.watch(loop.links_changed, stop, core.settle))
    bygone = OrphanNetworks(core, Docker(client.dockerd, client.networks, netlink.links))
    _thread("bygone", lambda: bygone.run(stop))
    netlink.prepare()
    return core


def _firewall(name: str) -> Firewall:
    """Give a backend of the firewall; what it needs is loaded only for it."""
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
    """Remove what the other backends left behind if the setting was another."""
    found = {f"iptables-{variant}" for variant in {"legacy"} | iptables_variants.variants()}
    found |= {"nft"} if has_nf_tables() else set()
    for name in sorted(found - {used}):
        try:
            with closing(_firewall(name)) as other:
                other.clear()
        except (HostError, OSError) as error:  # OSError: without libnftables
            log.warning("rules that an earlier run may have left stay: backend=%s: %s", name, error)


def _source(
    config: Config, core: Callable[[], Reconciler], lookout: FlanneldProbe, stop: threading.Event
) -> Source:
    """Give the lease's source; gRPC and all is loaded only where etcd is used."""
    if config.etcd is None or not config.follows_etcd:
        return LocalSource(config.lease, config.network, config.subnet_len, config.subnet_file)
    from driver.flannel.etcd.client import Etcd  # noqa: PLC0415
    from driver.flannel.etcd_source import EtcdSource, Settings  # noqa: PLC0415
    from driver.flannel.membership import Membership, Snapshot  # noqa: PLC0415
    from driver.flannel.peers import Own  # noqa: PLC0415

    etcd, prefix = Etcd(config.etcd), config.etcd.prefix

    def follow(own: Own, known: Snapshot) -> Membership:
        member = Membership(
            etcd,
            prefix,
            own,
            known,
            in_use=lambda: bool(core().state.pools),
            changed=lambda: core().follow(),
            beside=lambda overlay: _beside(lookout, overlay),
        )
        _thread("etcd", lambda: member.run(stop))
        return member

    auto = config.lease == "auto"
    return EtcdSource(follow, Settings(config.public_ip, config.subnet_file, auto))


def _beside(lookout: FlanneldProbe, overlay: Overlay) -> str:
    """Say of what a flanneld on this host has now, if it has this network."""
    what = lookout.look().sign(overlay)
    return flanneld.has_it(what) if what else ""


def _thread(name: str, body: Callable[[], None]) -> None:
    threading.Thread(target=body, name=name, daemon=True).start()
