"""Makes links, addresses, settings and routes be what a plan says, and tells what is there.

Imports `events`, `listing`, `news` and `surroundings`, which read. What is written pyroute2
encodes, only here; it takes 0.1 s to load, so it is not before it is needed (`Netlink.prepare`).
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from driver import events, listing, surroundings
from driver.errors import HostError
from driver.events import DOOMED, GROUP, MAIN_TABLE, METRIC, PROTOCOL, Channel, Link
from driver.facts import Facts
from driver.model import ALIAS_PREFIX, CONTAINER_END_PREFIX, HOST_END_PREFIX, replace
from driver.news import Heard, News, unheard
from driver.things import RANK, Address, Bridge, Plan, Route, Sysctl, Thing, Veth

if TYPE_CHECKING:
    from pyroute2.netlink import nlmsg

log = logging.getLogger(__name__)

NEW = 0x600  # make it, fail if it exists
BATCH = 50  # veths removed at once; the kernel keeps other changes waiting some 30 ms
UNREACHABLE = 7
ACCEPT_RA = Sysctl("", "ipv6", "accept_ra", "0")
SYSCTLS = next(filter(Path.exists, map(Path, ("/host/proc/sys/net", "/proc/sys/net"))))
SETTINGS = {"bridge": (Sysctl("", "ipv4", "route_localnet", "1"), ACCEPT_RA), "vxlan": (ACCEPT_RA,)}
Attribute = tuple[str, Any]
_loading = threading.Lock()  # two threads that load the package at once fail: "deadlock detected"


class Netlink:
    """The kernel's side of the host, in the namespace of the thread that makes it.

    Ours are links by mark (`Link.ours`; `vtep` makes the vxlan), what they carry, and some routes.
    """

    kinds: ClassVar[tuple[type[Thing], ...]] = (Bridge, Veth, Address, Sysctl, Route)

    def __init__(self) -> None:
        self._channel = Channel()
        self._waiting: dict[str, Veth] = {}
        self._sweeps = ThreadPoolExecutor(1, "veth-removal")
        self._swept = self._sweeps.submit(self._sweep)

    @staticmethod
    def prepare() -> None:
        """Load now what the first change would have to wait for."""
        _link()

    def close(self) -> None:
        """Finish the removals that wait, then give everything back."""
        self._sweeps.shutdown()
        self._channel.close()

    def observe(self) -> frozenset[Thing]:
        """Give what the host has of ours; a link that is down differs from every wanted one."""
        things: set[Thing] = set(self._routes())
        names, ours = self._look()
        addressed = {link.number: link.name for link in ours if link.kind != "veth"}
        for link in ours:
            # One that is not up, or is doomed, shows an MTU nobody wants.
            mtu = link.mtu if link.up and link.group == GROUP else 0
            things.update(_settings(link))
            if link.kind == "bridge":
                things.add(Bridge(link.name, link.mac, mtu, link.owner))
            elif link.kind == "veth":
                bridge = names.get(link.master, "")
                things.add(Veth(link.name, bridge, mtu, link.hairpin, link.owner, "", ""))
        found = ((addressed.get(a.link), a.interface) for a in listing.addresses(self._channel))
        return frozenset(things | {Address(name, ip) for name, ip in found if name})

    def links(self) -> frozenset[str]:
        """Give the names of our veths' and bridges' ends that are in this namespace."""
        names, ours = self._look()
        host_ends = {link.name for link in ours}
        ends = {name.replace(HOST_END_PREFIX, CONTAINER_END_PREFIX, 1) for name in host_ends}
        return frozenset(host_ends | (ends & set(names.values())))

    def _look(self) -> tuple[dict[int, str], list[Link]]:
        """Give all links' names by index, and our links without those that wait for removal."""
        waiting = set(self._waiting)  # before the list: what is removed meanwhile is in neither
        links = self._channel.links()
        ours = [link for link in links.values() if link.ours and link.name not in waiting]
        return {index: link.name for index, link in links.items()}, ours

    def _routes(self) -> set[Route]:
        found = listing.routes(self._channel, UNREACHABLE, table=MAIN_TABLE, protocol=PROTOCOL)
        return {Route(route.dst) for route in found}

    def facts(self) -> Facts:
        """Look at the rest of the host."""
        return surroundings.look(self._channel)

    def apply(self, plan: Plan) -> None:
        """Carry a plan out; what fails does not keep the rest from being done.

        Errors: an ExceptionGroup of HostError, one for each thing that failed.
        """
        # In rank order, for a changed veth may need the bridge that is added again.
        wanted = sorted((*plan.add, *(new for _, new in plan.change)), key=lambda t: RANK[type(t)])
        removals = [("remove", thing, self._remove) for thing in plan.remove]
        errors = []
        for verb, thing, act in removals + [("set up", thing, self._ensure) for thing in wanted]:
            try:
                act(thing)
            except HostError as error:
                errors.append(error)
            except OSError as error:
                what = " ".join(thing.key).lower()
                errors.append(HostError(f"cannot {verb} {what}: {error.strerror}"))
        if errors:
            raise ExceptionGroup("the kernel refused changes", errors)

    def _ensure(self, thing: Thing) -> None:
        match thing:
            case Bridge():
                self._ensure_bridge(thing)
            case Veth():
                self._ensure_veth(thing)
            case Address(name, ip):
                request = _address(self._own(name), ip)
                self._channel.ask(events.NEWADDR, request, NEW, fine=errno.EEXIST)
            case Sysctl(name):
                self._own(name)
                if _setting(thing).parent.exists():
                    _setting(thing).write_text(thing.value)
            case Route(dst):
                self._channel.ask(events.NEWROUTE, _unreachable(dst), NEW, fine=errno.EEXIST)
                if thing not in self._routes():
                    raise HostError(f"route {dst} exists and is not this plugin's; delete it")

    def _ensure_bridge(self, bridge: Bridge) -> None:
        name, group = ("IFLA_IFNAME", bridge.name), ("IFLA_GROUP", GROUP)
        mac = ("IFLA_ADDRESS", bridge.mac)
        if not self._find(bridge.name):
            kind = _nest("IFLA_LINKINFO", ("IFLA_INFO_KIND", "bridge"))
            self._channel.ask(events.NEWLINK, _link(name, group, mac, kind), NEW)
        # An MTU given at creation would not stay: only a later one keeps the ports' from it.
        rest = ("IFLA_MTU", bridge.mtu), ("IFLA_IFALIAS", ALIAS_PREFIX + bridge.owner)
        self._channel.ask(events.NEWLINK, _link(name, group, mac, *rest, up=True))

    def _ensure_veth(self, veth: Veth) -> None:
        if veth.name in self._waiting:
            self._swept.result()
        name, mtu = ("IFLA_IFNAME", veth.name), ("IFLA_MTU", veth.mtu)
        bridge = self._own(veth.bridge).number
        place = name, mtu, ("IFLA_MASTER", bridge), ("IFLA_GROUP", GROUP)
        if found := self._find(veth.name):
            if (found.up, found.mtu, found.master, found.group) != (True, veth.mtu, bridge, GROUP):
                self._channel.ask(events.NEWLINK, _link(*place, up=True))
        else:
            end = ("IFLA_IFNAME", veth.container_end), mtu, ("IFLA_ADDRESS", veth.mac)
            pair = _nest("IFLA_INFO_DATA", _nest("VETH_INFO_PEER", *end))
            kind = _nest("IFLA_LINKINFO", ("IFLA_INFO_KIND", "veth"), pair)
            try:
                self._channel.ask(events.NEWLINK, _link(*place, kind, up=True), NEW)
            except FileExistsError:
                raise _foreign(veth.container_end) from None
        self._channel.ask(events.NEWLINK, events.bridge_port(veth.name, veth.owner, veth.hairpin))

    def _remove(self, thing: Thing) -> None:
        match thing:
            case Bridge(name):
                if any(veth.bridge == name for veth in list(self._waiting.values())):
                    self._swept.result()
                if index := self._channel.doom(name):
                    self._channel.ask(events.DELLINK, _link(index=index), fine=errno.ENODEV)
            case Veth():
                self._waiting[thing.name] = thing
                self._swept = self._sweeps.submit(self._sweep)
            case Address(name, ip):
                if (link := self._channel.link(name)) and link.ours:
                    request = _address(link, ip)
                    self._channel.ask(events.DELADDR, request, fine=errno.EADDRNOTAVAIL)
            case Route(dst):
                self._channel.ask(events.DELROUTE, _unreachable(dst), fine=errno.ESRCH)

    def _sweep(self) -> None:
        """Remove the veths that wait: one takes the kernel 15 ms, fifty in a group 30 ms."""
        batch = list(self._waiting)[:BATCH]
        try:
            if sum(map(self._channel.doom, batch)):
                request = _link(("IFLA_GROUP", DOOMED))
                self._channel.ask(events.DELLINK, request, fine=errno.ENODEV)
        except OSError as error:
            log.warning("veths stay until the next pass: %s names=%s", error, batch)
        for name in batch:
            del self._waiting[name]

    def _own(self, name: str) -> Link:
        if not (link := self._find(name)):
            raise HostError(f"link {name} is missing")
        return link

    def _find(self, name: str) -> Link | None:
        if (link := self._channel.link(name)) and not link.ours:
            raise _foreign(name)
        return link

    def watch(self, changed: Heard, stop: threading.Event, risen: Heard = unheard) -> None:
        """Report what may be drift until told to stop: links of ours, "" for news of the host."""
        with closing(News()) as news:
            news.watch(self._channel.links, changed, stop, risen)


def _foreign(name: str) -> HostError:
    return HostError(f"link {name} exists and is not this plugin's; rename or delete it")


def _setting(sysctl: Sysctl) -> Path:
    """Give a setting's file; no folder without IPv6. A managed plugin's /proc/sys is read-only."""
    return SYSCTLS / sysctl.family / "conf" / sysctl.link / sysctl.name


def _settings(link: Link) -> Iterator[Sysctl]:
    for setting in SETTINGS.get(link.kind, ()):
        sysctl = replace(setting, link=link.name)
        with suppress(FileNotFoundError):
            sysctl = replace(sysctl, value=_setting(sysctl).read_text().strip())
        yield sysctl


def _encode(message: nlmsg, attrs: Iterable[Attribute], **fields: int) -> bytes:
    message.setvalue({**fields, "attrs": list(attrs)})
    message.encode()
    return bytes(message.data)


def _link(*attrs: Attribute, index: int = 0, up: bool = False) -> bytes:
    with _loading:
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: PLC0415

    return _encode(ifinfmsg(), attrs, index=index, flags=int(up), change=int(up))


def _nest(name: str, *attrs: Attribute) -> Attribute:
    return name, {"attrs": list(attrs)}


def _address(link: Link, ip: IPv4Interface) -> bytes:
    with _loading:
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: PLC0415

    attrs = [("IFA_LOCAL", str(ip.ip)), ("IFA_ADDRESS", str(ip.ip))]
    length = ip.network.prefixlen
    return _encode(ifaddrmsg(), attrs, family=socket.AF_INET, index=link.number, prefixlen=length)


def _unreachable(dst: IPv4Network) -> bytes:
    with _loading:
        from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: PLC0415

    attrs = [("RTA_DST", str(dst.network_address)), ("RTA_PRIORITY", METRIC)]
    kind = {"type": UNREACHABLE, "proto": PROTOCOL, "table": MAIN_TABLE}
    return _encode(rtmsg(), attrs, family=socket.AF_INET, dst_len=dst.prefixlen, **kind)
