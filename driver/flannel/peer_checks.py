"""What rules a lease out as a peer's, whatever other leases there are. Pure."""

from __future__ import annotations

from bisect import bisect
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from driver.flannel.lease_types import ThisHost
from driver.flannel.records import LeaseRecord, quoted
from driver.model.prefixes import holds, overlap, parts
from driver.model.records import Overlay

NO_MAC = "00:00:00:00:00:00"
LOOPBACK, MULTICAST = 127, 224  # first bytes of addresses; all above multicast is reserved


class LeaseCheck:
    """Checks a lease against the network config, this host's lease, and addresses' meanings."""

    def __init__(self, overlay: Overlay, host: ThisHost) -> None:
        self._overlay, self._host, self._ip = overlay, host, int(host.public_ip)
        self._length = overlay.network.prefixlen
        self._shift = 32 - self._length
        self._bits = int(overlay.network.network_address) >> self._shift

    def fault(self, record: LeaseRecord) -> str:
        """Return why a lease cannot be a peer's, "" if it can."""
        return (
            self._fault_of_subnet(record)
            or self._fault_of_public_ip(record)
            or self._fault_of_backend(record)
        )

    def _fault_of_subnet(self, record: LeaseRecord) -> str:
        start, length, _ = record.numbers
        if length == 0 and record.subnet6:
            return "has no IPv4 subnet"
        own = self._host.subnet
        if own is not None and overlap(own, record.subnet):
            if own == record.subnet:
                return f"gives our own subnet to {record.public_ip}"
            return f"overlaps our own subnet {own}"
        if length <= self._length or start >> self._shift != self._bits:
            return f"is not inside the Network {self._overlay.network}"
        return ""

    def _fault_of_public_ip(self, record: LeaseRecord) -> str:
        ip = record.numbers[2]
        if ip == self._ip:
            return f"has our own PublicIP {record.public_ip}"
        first = ip >> 24
        if ip == 0 or first == LOOPBACK or first >= MULTICAST:
            return f"has the PublicIP {record.public_ip}, which no host can have"
        own = self._host.subnet
        if own is not None and ip >> self._shift == self._bits and holds(own, record.public_ip):
            return f"has the PublicIP {record.public_ip}, which is in our own subnet"
        return ""

    def _fault_of_backend(self, record: LeaseRecord) -> str:
        overlay, mac = self._overlay, record.mac
        if record.backend != overlay.backend:
            theirs = quoted(record.backend)
            return f"is of the backend {theirs}, the network's is {overlay.backend}"
        if overlay.backend != "vxlan":
            return ""
        if mac is None:
            return "has no VtepMAC"
        if mac == self._host.mac:
            return f"has our own VtepMAC {mac}"
        if mac == NO_MAC or int(mac[:2], 16) & 1:
            return f"has the VtepMAC {mac}, which no host can have"
        return ""


class LocalCheck:
    """Checks a lease against the addresses that this host uses itself, inside the Network.

    An on-link prefix that contains the whole Network does not count: the administrator chose the
    Network so. False if there is nothing to check against.
    """

    def __init__(self, overlay: Overlay, host: ThisHost) -> None:
        self._network, self._longest = overlay.network, overlay.subnet_len
        self._inside = holds(overlay.network, host.public_ip)
        self._onlink = parts(overlay.network, host.local.onlink)
        self._places = [(ip, w) for ip, w in host.local.places if holds(overlay.network, ip)]
        single = [IPv4Network(ip) for ip, _ in self._places]
        ranges = list(collapse_addresses([*self._onlink, *single]))
        self._firsts = [int(prefix.network_address) for prefix in ranges]
        self._lasts = [int(prefix.broadcast_address) for prefix in ranges]

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def fault(self, subnet: IPv4Network, *, known: bool) -> str:
        """Return why a subnet cannot be a peer's, "" if it can.

        A peer `known` from before may cover what this host reaches by a longer prefix anyway.
        """
        length = subnet.prefixlen
        if length < self._longest and not known:
            return f"is larger than the config's SubnetLen, /{self._longest}, allows"
        first = int(subnet.network_address)
        at = bisect(self._firsts, first + (1 << 32 - length) - 1) - 1
        if at < 0 or self._lasts[at] < first:
            return ""
        near = [p for p in self._onlink if overlap(p, subnet)]
        longer = [p for p in near if p.prefixlen > length]
        for prefix in near:
            if not (known and prefix in longer):
                return f"overlaps {prefix}, which this host reaches directly or owns"
        for ip, what in self._places:
            if holds(subnet, ip) and not (known and any(holds(p, ip) for p in longer)):
                return f"covers {ip}, {what}"
        return ""

    def fault_of_public_ip(self, ip: IPv4Address) -> str:
        """Return why no host can have a public IP, "" if one can.

        Inside the Network are only containers, unless this host or its link is there too. A host
        there would be reached by the default route, which would have to stay open for the Network.
        """
        if self._inside or not holds(self._network, ip) or any(holds(p, ip) for p in self._onlink):
            return ""
        return f"has the PublicIP {ip}, which is inside the Network, where this host's is not"
