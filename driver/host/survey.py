"""Gathers the facts of the host from the adapters that know them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from driver.errors import Unavailable
from driver.host.firewall import iptables_variants
from driver.host.firewall.iptables_legacy import LegacyFilter
from driver.host.flanneld_probe import FlanneldProbe
from driver.host.links import Links
from driver.host.loopback import LoopbackGuards
from driver.host.residents import Residents
from driver.host.sandbox import Sandboxes
from driver.host.servers import Servers
from driver.host.surroundings import Surroundings
from driver.model.facts import ETCD, External, Facts, Resident
from driver.model.interfaces import Firewall
from driver.model.objects import HostObject
from driver.model.records import replace

log = logging.getLogger(__name__)

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class HostSurvey:
    """What the host has beside our objects, in the namespace of the thread that makes it."""

    def __init__(
        self,
        links: Links,
        watched: tuple[LoopbackGuards, Sandboxes],
        firewall: Firewall,
        probe: FlanneldProbe,
        servers: Servers,
        external: Callable[[Surroundings], External] | None = None,
    ) -> None:
        """`external` finds the interface to the underlay; None where nobody needs it."""
        self._guards, self._sandboxes = watched
        self._links, self._firewall, self._legacy = links, firewall, LegacyFilter()
        self._probe, self._residents = probe, Residents()
        self._servers, self._find_external = servers, external
        self._last: External | None = None

    def facts(self) -> Facts:
        """Return what the host has that is not ours."""
        found = self._links.surroundings()
        facts = self._links.facts(found)
        return replace(
            facts,
            places=(*facts.places, *((ip, ETCD) for ip in sorted(self._servers.etcd()))),
            resolvers=self._servers.resolvers(),
            etcd=self._servers.closed(),
            firewall=self._firewall.name,
            gates=iptables_variants.variants(),
            external=self._external(found),
            flanneld=self._probe.look(),
            guards=self._guards.able,
        )

    def ephemeral_ports(self) -> tuple[int, int]:
        """Return the first and the last port that the kernel chooses by itself."""
        low, high = map(int, EPHEMERAL.read_text().split())
        return low, high

    def _external(self, found: Surroundings) -> External | None:
        if self._find_external is None:
            return None
        try:
            self._last = self._find_external(found)
        except Unavailable as error:
            # a default route that is gone for a moment must not take the overlay down
            log.debug("%s", error)
        return self._last

    def disturbed(self) -> bool:
        """Whether somebody changed the firewall, a setting, a guard or a sandbox."""
        watched = (self._sandboxes, self._links, self._firewall, self._legacy, self._guards)
        found = [adapter.disturbed() for adapter in watched]  # asks all: each reports a change once
        return any(found)

    def docker_acts(self) -> None:
        """Note that Docker has set the host up."""
        self._links.docker_acts()

    def look(self, links: Iterable[str]) -> frozenset[HostObject]:
        """Return some of our links with their settings and addresses."""
        return self._links.observe_links(links)

    def links(self) -> frozenset[str]:
        """List our links by name."""
        return self._links.links()

    def occupied(self) -> frozenset[str]:
        """List the host ends of our veths whose other end is in another network namespace."""
        return self._residents.occupied()

    def residents(self, host_ends: frozenset[str]) -> tuple[Resident, ...]:
        """Return what is at the other ends of veths whose sandboxes can be entered."""
        return self._residents.look(host_ends)
