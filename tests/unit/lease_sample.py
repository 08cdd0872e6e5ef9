"""States of the lease policy and views of etcd, for tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from driver.flannel.etcd.registry import Entry
from driver.flannel.lease_policy import step
from driver.flannel.lease_types import EtcdView, HeldLease, LeaseTimes, PolicyState, Step, ThisHost
from driver.flannel.records import lease_value
from driver.model.records import Overlay

N = IPv4Network
IP = IPv4Address
OVERLAY = Overlay(N("10.5.0.0/16"), 24, IP("10.5.1.0"), IP("10.5.255.0"), "vxlan")
OTHER = Overlay(N("10.6.0.0/16"), 24, IP("10.6.1.0"), IP("10.6.255.0"), "vxlan")
MAC = "02:00:00:00:00:01"
FOREIGN = "02:00:00:00:00:99"
HOST = ThisHost(IP("192.0.2.11"), MAC)
BUSY = replace(HOST, in_use="network 0123456789ab")
HOST_99 = (IP("192.0.2.11"), FOREIGN)  # which has our public IP
SUBNET = N("10.5.9.0/24")
NOW = 1000.0
TERMS = LeaseTimes(100, 10.0)


def key(subnet: str | N) -> str:
    return f"/f/subnets/{str(subnet).replace('/', '-')}"


def value(ip: str = "192.0.2.11", mac: str = MAC) -> str:
    return lease_value(IP(ip), "vxlan", 1, mac)


OURS = value()
THEIRS = value("192.0.2.30", FOREIGN)
TWIN = value(mac=FOREIGN)
COPY = value("192.0.2.12")


def view(config: Overlay | None = OVERLAY, **keys: tuple[str, int]) -> EtcdView:
    """Return a view with the key of 10.5.9.0/24 for `_9=(value, revision)`, and so on."""
    named = {key(f"10.5.{name[1:]}.0/24"): found for name, found in keys.items()}
    entries = {k: Entry(k, text.encode(), revision) for k, (text, revision) in named.items()}
    return EtcdView("/f", config, "" if config else "no config", entries)


def first(choices: Sequence[N]) -> N:
    return choices[0]


def decide(state: PolicyState, seen: EtcdView, host: ThisHost = HOST, now: float = NOW) -> Step:
    return step(state, seen, host, now, first)


HELD = PolicyState(OVERLAY, SUBNET, HeldLease(SUBNET, 5, NOW + 50, OURS))
KNOWN = PolicyState(OVERLAY, SUBNET)
FRESH = PolicyState()
