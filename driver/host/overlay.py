"""Makes the overlay's device, neighbours, FDB entries and routes as a plan says.

Source: drivers/net/vxlan/vxlan_core.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import ClassVar

from driver.errors import HostError
from driver.host.netlink import constants as nl
from driver.host.netlink import dump, encoder
from driver.host.netlink.channel import Channel, Request
from driver.host.netlink.decoder import Link, read_vxlan
from driver.host.netlink.monitor import Monitor
from driver.model.objects import RANK, Fdb, HostObject, Neighbour, PeerRoute, Plan, Vxlan, worded
from driver.model.records import ALIAS_PREFIX, ANY

GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)
PeerObject = Neighbour | Fdb | PeerRoute
_METRIC = encoder.u32(nl.RTA_PRIORITY, nl.METRIC)


class OverlayAdapter:
    """The VTEP and its peers, in the namespace of the thread that makes this.

    We own marked vxlan devices (`Link.ours`), their permanent entries, and routes with our protocol
    and metric. `links` sets a device's address and sysctl afterwards.
    """

    kinds: ClassVar[tuple[type[HostObject], ...]] = (Vxlan, Neighbour, Fdb, PeerRoute)

    def __init__(self, monitor: Monitor | None = None) -> None:
        """`monitor` ignores what this does."""
        self._channel, self._monitor = Channel(), monitor or Monitor()
        self._monitor.ignore(self._channel)

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    def observe(self) -> frozenset[HostObject]:
        """Return our objects on the host; a device that is down differs from every wanted one."""
        named = cache(self._name)
        objects: set[HostObject] = set(self._routes(named))
        for link in self._channel.links("vxlan").values():
            if link.ours:
                objects.add(_device(link, named))
                neighbours = dump.neighbours(self._channel, link.number)
                objects.update(Neighbour(link.name, ip, mac) for ip, mac in neighbours)
                entries = dump.fdb(self._channel, link.number)
                objects.update(Fdb(link.name, mac, dst) for dst, mac in entries)
        return frozenset(objects)

    def _name(self, index: int) -> str:
        """Return a link's name, "" if there is none."""
        link = self._channel.link_at(index)
        return link.name if link else ""

    def _routes(self, named: Callable[[int], str]) -> Iterator[PeerRoute]:
        main = nl.RT_TABLE_MAIN
        for route in dump.routes(self._channel, nl.RTN_UNICAST, table=main, ours=True):
            if route.metric == nl.METRIC:
                # a second way makes it differ from every wanted one
                link, via = route.hops[0] if len(route.hops) == 1 else (0, None)
                yield PeerRoute(route.dst, via or ANY, named(link), route.onlink)

    def apply(self, plan: Plan) -> None:
        """Carry out a plan; one failure does not stop the rest.

        Errors: an ExceptionGroup of HostError, one for each object that failed, or for all on a
        link that is not there.
        """
        wanted = sorted(plan.new(), key=lambda t: RANK[type(t)])
        with self._monitor.hush():
            errors = [*self._drop(plan.remove), *self._each("remove", plan.remove, self._remove)]
            carried = self._carried([new.name for _, new in plan.change if isinstance(new, Vxlan)])
            errors += [*self._each("set up", wanted, self._ensure), *self._put(carried + wanted)]
        if errors:
            raise ExceptionGroup("the kernel refused changes", errors)

    def _carried(self, devices: list[str]) -> list[HostObject]:
        """List the entries and routes on devices that change: the kernel may drop them then."""
        there = self.observe() if devices else ()
        return [item for item in there if isinstance(item, PeerObject) and item.link in devices]

    def _each(
        self, verb: str, objects: Iterable[HostObject], act: Callable[[Vxlan], None]
    ) -> Iterator[HostError]:
        for device in objects:
            if isinstance(device, Vxlan):
                try:
                    act(device)
                except HostError as error:
                    yield error
                except OSError as error:
                    yield _refusal(verb, device, error)

    def _ensure(self, device: Vxlan) -> None:
        """`ip link add NAME address MAC type vxlan id VNI dev PARENT local IP dstport PORT`.

        Then `ip link set NAME mtu MTU alias …`. A device that cannot be changed is made again.
        """
        parent, link = self._there(device.parent), self._find(device.name)
        if link and read_vxlan(link)[:3] != (device.vni, device.port, device.gbp):
            self._remove(device)
            link = None
        ours = encoder.ours(device.name)
        request = ours + encoder.vxlan(device, parent.number, new=link is None)
        if link is None or link.mac != device.mac:  # setting even the same drops all neighbours
            request += encoder.mac(nl.IFLA_ADDRESS, device.mac)
        try:
            self._channel.ask(nl.RTM_NEWLINK, request, 0 if link else nl.NEW)
        except FileExistsError:
            raise self._taken(device) from None
        rest = encoder.string(nl.IFLA_IFALIAS, f"{ALIAS_PREFIX}vtep")
        self._channel.ask(nl.RTM_NEWLINK, ours + encoder.u32(nl.IFLA_MTU, device.mtu) + rest)
        made = self._find(device.name)
        if made is None or made.mac != device.mac:
            raise HostError(
                f"link {device.name} does not keep the MAC {device.mac}, which peers send to; "
                "exclude it from udev's MACAddressPolicy and from NetworkManager"
            )

    def _taken(self, device: Vxlan) -> HostError:
        wanted, what = (device.vni, device.port), f"VNI {device.vni} on port {device.port}"
        for link in self._channel.links("vxlan").values():
            if read_vxlan(link)[:2] == wanted:
                return HostError(f"link {link.name} has {what} already; delete it or use another")
        return HostError(f"cannot set up vxlan {device.name}: {what} is taken")

    def _remove(self, device: Vxlan) -> None:
        link = self._channel.link(device.name)
        if link and link.ours:
            request = encoder.numbered(link.number)
            self._channel.ask(nl.RTM_DELLINK, request, fine=errno.ENODEV)

    def _find(self, name: str) -> Link | None:
        link = self._channel.link(name)
        if link and not link.ours:
            raise HostError(
                f"link {name} exists and is not this plugin's but a flanneld's, it seems: stop "
                "that and delete the link, or use its lease (DOCKER_FLANNEL_LEASE=subnet-file)"
            )
        return link

    def _there(self, name: str) -> Link:
        if link := self._channel.link(name):
            return link
        raise HostError(f"link {name} is missing")

    def _put(self, objects: Iterable[HostObject]) -> Iterator[HostError]:
        items, numbers = _of_peers(objects), dict[str, int]()
        ours = {item.link for item in items if not isinstance(item, PeerRoute) or item.onlink}
        for name in dict.fromkeys(item.link for item in items):
            try:
                link = self._find(name) if name in ours else None
                numbers[name] = (link or self._there(name)).number
            except HostError as error:
                yield error
        ready = [item for item in items if item.link in numbers]
        refused = self._channel.batch([_addition(item, numbers[item.link]) for item in ready])
        yield from (_refusal("set up", ready[place], why) for place, why in refused.items())

    def _drop(self, objects: Iterable[HostObject]) -> Iterator[HostError]:
        items = _of_peers(objects)
        names = {item.link for item in items if not isinstance(item, PeerRoute)}
        links = {name: self._channel.link(name) for name in names}
        numbers = {name: link.number for name, link in links.items() if link and link.ours}
        there = [item for item in items if isinstance(item, PeerRoute) or item.link in numbers]
        refused = self._channel.batch([_removal(item, numbers.get(item.link, 0)) for item in there])
        for place, why in refused.items():
            if why.errno not in GONE:
                yield _refusal("remove", there[place], why)


def _of_peers(objects: Iterable[HostObject]) -> list[PeerObject]:
    return [item for item in objects if isinstance(item, PeerObject)]


def _addition(item: PeerObject, link: int) -> Request:
    match item:
        case Neighbour(_, ip, mac):
            # ip neigh replace IP lladdr MAC dev LINK nud permanent
            return nl.RTM_NEWNEIGH, nl.REPLACE, encoder.neighbour(link, ip, mac)
        case Fdb(_, mac, dst):
            # bridge fdb replace MAC dev LINK dst DST self permanent
            return nl.RTM_NEWNEIGH, nl.REPLACE, encoder.fdb(link, mac, dst)
        case PeerRoute(dst, via, _, onlink):
            # ip route replace DST via VIA dev LINK [onlink] proto 91 metric 91000
            way = _METRIC, encoder.ipv4(nl.RTA_GATEWAY, via), encoder.u32(nl.RTA_OIF, link)
            flags = nl.RTNH_F_ONLINK if onlink else 0
            return nl.RTM_NEWROUTE, nl.REPLACE, encoder.route(dst, *way, flags=flags)


def _removal(item: PeerObject, link: int) -> Request:
    match item:
        case Neighbour(_, ip):
            # ip neigh del IP dev LINK
            return nl.RTM_DELNEIGH, 0, encoder.neighbour(link, ip)
        case Fdb(_, mac):
            # bridge fdb del MAC dev LINK self
            return nl.RTM_DELNEIGH, 0, encoder.fdb(link, mac)
        case PeerRoute(dst):
            # ip route del DST proto 91 metric 91000
            request = encoder.route(dst, _METRIC, scope=nl.RT_SCOPE_NOWHERE)
            return nl.RTM_DELROUTE, 0, request


def _device(link: Link, named: Callable[[int], str]) -> Vxlan:
    found = read_vxlan(link)
    place = found.vni, found.port, found.local, named(found.parent)
    mtu = link.mtu if link.up and link.group == nl.GROUP else 0
    return Vxlan(link.name, *place, link.mac, mtu, found.gbp, found.learning)


def _refusal(verb: str, item: HostObject, why: OSError) -> HostError:
    return HostError(f"cannot {verb} {worded(item.key)}: {why.strerror}")
