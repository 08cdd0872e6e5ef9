"""Which of other hosts' packets come in without encapsulation, as elements of the firewall. Pure.

Imports nouns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from driver.model.objects import Element, HostObject
from driver.model.records import Peer

SHORT, USUAL = 20, 24  # lengths of leases between which `direct24` has each as a few of 24


def plan_peer_rules(peers: Iterable[Peer]) -> Iterator[HostObject]:
    """Let in the containers of direct peers, and those hosts with their own addresses.

    One more of thousands takes a set of intervals 40 ms, and one of addresses no time at all.
    """
    for peer in peers:
        if SHORT <= peer.subnet.prefixlen <= USUAL:
            for part in peer.subnet.subnets(new_prefix=USUAL):
                yield Element("direct24", str(part.network_address))
        else:
            yield Element("direct4", str(peer.subnet))
        yield Element("peers4", str(peer.public_ip))
