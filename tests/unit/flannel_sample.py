"""Leases as flannel has written them, and broken ones."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from driver.flannel.lease_types import ThisHost
from driver.flannel.records import LeaseRecord, lease_key
from driver.model.records import Overlay

N = IPv4Network
IP = IPv4Address
OVERLAY = Overlay(N("10.5.0.0/16"), 24, IP("10.5.1.0"), IP("10.5.255.0"), "vxlan")
OWN = ThisHost(IP("192.168.77.10"), "02:00:00:00:00:01", N("10.5.9.0/24"))
MAC = "fe:2d:0c:76:f0:81"
FOLDER = "/coreos.com/network/subnets/"
GOLDEN = (
    b'{"PublicIP":"192.168.77.11","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"fe:2d:0c:76:f0:81"}}'
)
GOLDEN_DUAL = (
    b'{"PublicIP":"192.168.77.11","PublicIPv6":"fd77::11","BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"aa:27:46:00:38:c1"},'
    b'"BackendV6Data":{"VNI":1,"VtepMAC":"d6:b7:db:a1:ba:09"}}'
)
GOLDEN_GW = b'{"PublicIP":"192.168.77.12","PublicIPv6":"fd77::12","BackendType":"host-gw"}'


def value(**fields: Any) -> bytes:
    return json.dumps({**json.loads(GOLDEN), **fields}).encode()


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"PublicIP": None}, "PublicIP null is not an address"),
    ({"PublicIP": ""}, 'PublicIP "" is not an address'),
    ({"PublicIP": "1.2.3"}, "is not an address"),
    ({"PublicIP": 16909060}, "is not an address"),
    ({"PublicIP": "fd77::1"}, "is not an address"),
    ({"PublicIPv6": ""}, 'PublicIPv6 "" is not an address'),
    ({"PublicIPv6": 5}, "PublicIPv6 5 is not an address"),
    ({"BackendType": 5}, "BackendType 5 is not a string"),
    ({"BackendData": "x"}, "is not a JSON object"),
    ({"BackendData": {"VtepMAC": "xx:2d:0c:76:f0:81"}}, "is not a MAC"),
    ({"BackendData": {"VtepMAC": "fe:2d:0c:76:f0"}}, "is not a MAC"),
    ({"BackendData": {"VtepMAC": "fe:2d-0c:76:f0:81"}}, "is not a MAC"),
    ({"BackendData": {"VtepMAC": 5}}, "VtepMAC 5 is not a MAC"),
    ({"BackendData": {"VtepMAC": ""}}, 'VtepMAC "" is not a MAC'),
]


def record(subnet: str, ip: str, mac: str | None = MAC, revision: int = 7) -> LeaseRecord:
    net = N(subnet)
    return LeaseRecord(FOLDER + lease_key(net), net, None, IP(ip), "vxlan", mac, revision)
