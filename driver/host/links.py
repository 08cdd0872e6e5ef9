"""Makes links, addresses, settings and routes as a plan says, and observes them."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from typing import ClassVar

from driver.errors import HostError
from driver.host import surroundings
from driver.host.netlink import constants as nl
from driver.host.netlink import dump, encoder
from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import Link
from driver.host.netlink.monitor import Monitor, Report, unreported
from driver.host.surroundings import Surroundings
from driver.host.sysctls import Sysctls
from driver.model.facts import Facts
from driver.model.objects import (
    ALL,
    RANK,
    Bridge,
    HostObject,
    LinkAddress,
    Plan,
    Sysctl,
    UnreachableRoute,
    Veth,
    worded,
)
from driver.model.records import ALIAS_PREFIX, CONTAINER_END_PREFIX, HOST_END_PREFIX, replace

log = logging.getLogger(__name__)

BATCH = 50  # veths removed at once; the kernel keeps other changes waiting some 30 ms
ACCEPT_RA = Sysctl("", "ipv6", "accept_ra", "0")
FORWARDING = Sysctl(ALL, "ipv4", "forwarding", "1")
NO_IPV6 = Sysctl("", "ipv6", "disable_ipv6", "1")
SETTINGS = {"bridge": (NO_IPV6,), "vxlan": (ACCEPT_RA,)}


class Links:
    """Our bridges and veths, in the namespace of the thread that makes this.

    We own marked links (`Link.ours`), their addresses and settings, also those of the vxlan device
    that `overlay` makes, and the lease's unreachable route.
    """

    kinds: ClassVar[tuple[type[HostObject], ...]] = (
        Bridge,
        Veth,
        LinkAddress,
        Sysctl,
        UnreachableRoute,
    )

    def __init__(self, monitor: Monitor | None = None, *, forwards: bool = True) -> None:
        """`monitor` ignores what this does; with `forwards`, it may switch forwarding on."""
        self._may_forward, self._docker_has_acted = forwards, False
        self._sysctls = Sysctls()
        self._channel = Channel()
        self._monitor = monitor or Monitor()
        self._monitor.ignore(self._channel)
        self._waiting: dict[str, Veth] = {}
        self._sweeps = ThreadPoolExecutor(1, "veth-removal")
        self._swept = self._sweeps.submit(self._sweep)

    @staticmethod
    def prepare() -> None:
        """Load pyroute2, so that the first network need not wait for it."""
        encoder.link()

    def close(self) -> None:
        """Finish the removals that wait, then close the sockets."""
        self._sweeps.shutdown()
        self._channel.close()
        self._monitor.close()

    def observe(self) -> frozenset[HostObject]:
        """Return our objects on the host; a link that is down differs from every wanted one."""
        names, ours = self._look()
        found = dump.addresses(self._channel)
        with_network = self._forwards and any(link.kind == "bridge" for link in ours)
        everywhere = [self._now(FORWARDING, ALL)] if with_network else []
        return frozenset([*self._routes(), *everywhere, *self._carried(ours, names, found)])

    def observe_links(self, wanted: Iterable[str]) -> frozenset[HostObject]:
        """Return some of our links with their settings and addresses, in 0.1 ms each."""
        objects = set[HostObject]()
        for link in filter(None, map(self._channel.link, wanted)):
            if link.ours:
                master = self._channel.link_at(link.master)
                names = {master.number: master.name} if master else {}
                found = dump.addresses(self._channel, link.number)
                objects.update(self._carried([link], names, found))
        return frozenset(objects)

    def _carried(
        self, links: Sequence[Link], names: dict[int, str], addresses: Iterable[dump.AddressEntry]
    ) -> Iterator[HostObject]:
        """Yield links of ours with their settings and addresses."""
        addressed = dict[int, str]()
        forwarding = [FORWARDING] if self._forwards else []
        with_network = any(link.kind == "bridge" for link in links)
        for link in links:
            # A link that is down or doomed gets an MTU that nobody wants.
            mtu = link.mtu if link.up and link.group == nl.GROUP else 0
            more = forwarding if with_network and link.kind in SETTINGS else []
            for setting in (*SETTINGS.get(link.kind, ()), *more):
                yield self._now(setting, link.name)
            if link.kind == "bridge":
                yield Bridge(link.name, link.mac, mtu, link.owner)
            elif link.kind == "veth":
                bridge = names.get(link.master, "")
                yield Veth(link.name, bridge, mtu, link.hairpin, link.owner, "", "")
            if link.kind != "veth":
                addressed[link.number] = link.name
        for address in addresses:
            if name := addressed.get(address.link):
                yield LinkAddress(name, address.interface)

    def _now(self, setting: Sysctl, link: str) -> Sysctl:
        setting = replace(setting, link=link)
        return replace(setting, value=self._sysctls.read(setting))

    @property
    def _forwards(self) -> bool:
        return self._may_forward and self._docker_has_acted

    def docker_acts(self) -> None:
        """Note that Docker makes something, so it has set up the host already.

        Docker closes the host to strangers' packets only when it switches forwarding on itself.
        """
        self._docker_has_acted = True

    def disturbed(self) -> bool:
        """Whether somebody changed a setting since we last read or set it; cheap."""
        return self._sysctls.disturbed()

    def links(self) -> frozenset[str]:
        """List the names of our bridges, and of our veths' ends that are in this namespace."""
        names, ours = self._look()
        host_ends = {link.name for link in ours}
        ends = {name.replace(HOST_END_PREFIX, CONTAINER_END_PREFIX, 1) for name in host_ends}
        return frozenset(host_ends | (ends & set(names.values())))

    def _look(self) -> tuple[dict[int, str], list[Link]]:
        """Return all links' names by index, and our links but those that wait for removal."""
        waiting = set(self._waiting)  # before the list: what is removed meanwhile is in neither
        links = self._channel.links()
        ours = [link for link in links.values() if link.ours and link.name not in waiting]
        return {index: link.name for index, link in links.items()}, ours

    def _routes(self) -> set[UnreachableRoute]:
        main = nl.RT_TABLE_MAIN
        found = dump.routes(self._channel, nl.RTN_UNREACHABLE, table=main, ours=True)
        return {UnreachableRoute(route.dst) for route in found if route.metric == nl.METRIC}

    def surroundings(self) -> Surroundings:
        """List the host's links, addresses and routes."""
        return surroundings.look(self._channel)

    def facts(self, found: Surroundings) -> Facts:
        """Return what lists and settings show of what is not ours."""
        forwarding = self._sysctls.read(FORWARDING) == "1"
        self._docker_has_acted |= forwarding
        facts = surroundings.facts(found)
        return replace(facts, forwarding=forwarding, forwards=self._forwards)

    def apply(self, plan: Plan) -> None:
        """Carry out a plan; one failure does not stop the rest.

        Errors: an ExceptionGroup of HostError, one for each object that failed.
        """
        # In rank order: a changed veth may need a bridge that is added again.
        wanted = sorted(plan.new(), key=lambda t: RANK[type(t)])
        removals = [("remove", item, self._remove) for item in plan.remove]
        errors = []
        for verb, item, act in removals + [("set up", item, self._ensure) for item in wanted]:
            try:
                act(item)
            except HostError as error:
                errors.append(error)
            except OSError as error:
                errors.append(HostError(f"cannot {verb} {worded(item.key)}: {error.strerror}"))
        if errors:
            raise ExceptionGroup("the kernel refused changes", errors)

    def _ensure(self, item: HostObject) -> None:
        match item:
            case Bridge():
                self._ensure_bridge(item)
            case Veth():
                self._ensure_veth(item)
            case LinkAddress(name, ip):
                request = encoder.address(self._own(name).number, ip)
                self._channel.ask(nl.RTM_NEWADDR, request, nl.NEW, fine=errno.EEXIST)
            case Sysctl(name):
                if name != ALL:
                    self._own(name)
                self._sysctls.write(item)
            case UnreachableRoute(dst):
                self._channel.ask(nl.RTM_NEWROUTE, _unreachable(dst), nl.NEW, fine=errno.EEXIST)
                if item not in self._routes():
                    raise HostError(f"route {dst} exists and is not this plugin's; delete it")

    def _ensure_bridge(self, bridge: Bridge) -> None:
        name, group = ("IFLA_IFNAME", bridge.name), ("IFLA_GROUP", nl.GROUP)
        mac = ("IFLA_ADDRESS", bridge.mac)
        if not self._find(bridge.name):
            request = encoder.link(name, group, mac, encoder.link_kind("bridge"))
            self._channel.ask(nl.RTM_NEWLINK, request, nl.NEW)
        # Only an MTU set after creation stays; another one would follow the ports'.
        rest = ("IFLA_MTU", bridge.mtu), ("IFLA_IFALIAS", ALIAS_PREFIX + bridge.owner)
        self._channel.ask(nl.RTM_NEWLINK, encoder.link(name, group, mac, *rest, up=True))

    def _ensure_veth(self, veth: Veth) -> None:
        if veth.name in self._waiting:
            self._swept.result()
        bridge = self._own(veth.bridge).number
        if found := self._find(veth.name):
            wanted = True, veth.mtu, bridge, nl.GROUP
            if (found.up, found.mtu, found.master, found.group) != wanted:
                self._channel.ask(nl.RTM_NEWLINK, encoder.host_end(veth, bridge))
        else:
            try:
                self._channel.ask(nl.RTM_NEWLINK, encoder.veth(veth, bridge), nl.NEW)
            except FileExistsError:
                raise _foreign(veth.container_end) from None
        self._channel.ask(nl.RTM_NEWLINK, encoder.bridge_port(veth))

    def _remove(self, item: HostObject) -> None:
        match item:
            case Bridge(name):
                if any(veth.bridge == name for veth in list(self._waiting.values())):
                    self._swept.result()
                if index := self._doom(name):
                    request = encoder.numbered(index)
                    self._channel.ask(nl.RTM_DELLINK, request, fine=errno.ENODEV)
            case Veth():
                self._waiting[item.name] = item
                self._swept = self._sweeps.submit(self._sweep)
            case LinkAddress(name, ip):
                if (link := self._channel.link(name)) and link.ours:
                    request = encoder.address(link.number, ip)
                    self._channel.ask(nl.RTM_DELADDR, request, fine=errno.EADDRNOTAVAIL)
            case UnreachableRoute(dst):
                self._channel.ask(nl.RTM_DELROUTE, _unreachable(dst), fine=errno.ESRCH)

    def _sweep(self) -> None:
        """Remove the veths that wait: one takes the kernel 15 ms, fifty in a group 30 ms."""
        batch = list(self._waiting)[:BATCH]
        try:
            if sum(map(self._doom, batch)):
                self._channel.ask(nl.RTM_DELLINK, encoder.doomed(), fine=errno.ENODEV)
        except OSError as error:
            log.warning("veths stay until the next pass: %s names=%s", error, batch)
        for name in batch:
            del self._waiting[name]

    def _doom(self, name: str) -> int:
        """Put a link of ours into the group to remove; return its index, 0 if there is none."""
        link = self._channel.link(name)
        if not (link and link.ours):
            return 0
        self._channel.ask(nl.RTM_NEWLINK, encoder.doomed(link.number), fine=errno.ENODEV)
        return link.number

    def _own(self, name: str) -> Link:
        if not (link := self._find(name)):
            raise HostError(f"link {name} is missing")
        return link

    def _find(self, name: str) -> Link | None:
        if (link := self._channel.link(name)) and not link.ours:
            raise _foreign(name)
        return link

    def watch(self, changed: Report, stop: threading.Event, risen: Report = unreported) -> None:
        """Report what may be drift until `stop`, as `Monitor` does."""
        self._monitor.watch(self._channel.links, changed, stop, risen)


def _unreachable(dst: IPv4Network) -> bytes:
    return encoder.route(dst, encoder.u32(nl.RTA_PRIORITY, nl.METRIC), kind=nl.RTN_UNREACHABLE)


def _foreign(name: str) -> HostError:
    return HostError(f"link {name} exists and is not this plugin's; rename or delete it")
