"""Elements of sets and maps as different libnftables list them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from driver.host.firewall import nft_listing
from driver.host.firewall.nft_elements import SETS, key, place
from driver.host.firewall.nft_table import TEXT
from driver.model.firewall import (
    ENTRIES,
    FirewallEntry,
    ForeignBridge,
    InternalBridge,
    OverlayPrefix,
    PortMap,
    UnknownEntry,
)
from driver.model.records import ANY, replace

META = {"typeof": {"meta": {"key": "iifname"}}}
PAYLOAD = {"typeof": {"payload": {"protocol": "ip", "field": "saddr"}}}
BLOCK = {"prefix": {"addr": "10.2.0.0", "len": 16}}
PORT = {"concat": [6, 8081]}
TARGET = {"concat": ["10.2.44.3", 80]}
NOTED = {"elem": {"val": PORT, "comment": "e1"}}
WEB = PortMap("tcp", ANY, 8081, IPv4Address("10.2.44.3"), 80)
PREFIX = IPv4Network("10.2.0.0/16")
KEY, DATA = ["inet_proto", "inet_service"], ["ipv4_addr", "inet_service"]


@pytest.mark.parametrize(
    ("name", "body", "entry"),
    [
        ("internal", {"type": "ifname", "elem": ["fl-1"]}, InternalBridge("fl-1")),
        ("internal", {"type": META, "elem": ["fl-1"]}, InternalBridge("fl-1")),
        ("over4", {"type": "ipv4_addr", "elem": [BLOCK]}, OverlayPrefix(PREFIX)),
        ("over4", {"type": PAYLOAD, "elem": [BLOCK]}, OverlayPrefix(PREFIX)),
        ("pub4_any", {"type": KEY, "map": " . ".join(DATA), "elem": [[PORT, TARGET]]}, WEB),
        ("pub4_any", {"type": KEY, "map": DATA, "elem": [[PORT, TARGET]]}, WEB),
        ("pub4_any", {"map": DATA, "elem": [[NOTED, TARGET]]}, replace(WEB, owner="e1")),
    ],
)
def test_the_forms_of_1_0_and_1_1(name: str, body: dict[str, Any], entry: FirewallEntry) -> None:
    assert nft_listing.entries([{"name": name, **body}]) == [entry]


@pytest.mark.parametrize(
    ("name", "listed", "text"),
    [
        ("over4", {"range": ["10.9.0.1", "10.9.0.6"]}, "10.9.0.1-10.9.0.6"),
        ("direct24", "10.9.0.1", "10.9.0.1"),
        ("direct4", BLOCK | {"prefix": {"addr": "10.9.0.0", "len": 24}}, "10.9.0.0/24"),
        ("own4", {"concat": [{"range": ["10.9.0.1", "10.9.0.6"]}, "x"]}, '10.9.0.1-10.9.0.6 . "x"'),
        ("pub4_any", [{"concat": [1, 8081]}, TARGET], "1 . 8081"),
        ("pub4_ip", [{"concat": ["0.0.0.0", 6, 8081]}, TARGET], "0.0.0.0 . 6 . 8081"),
    ],
)
def test_what_we_never_write_is_read_as_it_has_to_be_removed(
    name: str, listed: Any, text: str
) -> None:
    body = {"name": name, "elem": [listed]} | ({"map": DATA} if name.startswith("pub4") else {})
    [entry] = nft_listing.entries([body])
    assert entry == UnknownEntry(name, text)
    assert (place(entry), key(entry)) == (name, text)


def test_a_set_of_another_version_has_no_entries() -> None:
    assert nft_listing.entries([{"name": "bygone", "elem": ["x"]}, {"family": "inet"}]) == []


def test_every_set_of_the_table_has_its_entries() -> None:
    assert re.findall(r"^(?:set|map) (\w+)", TEXT, re.M) == list(SETS)
    assert {made.kind for made in SETS.values()} == {*ENTRIES} - {ForeignBridge, UnknownEntry}
