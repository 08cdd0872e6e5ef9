"""Elements of sets and maps as different libnftables list them."""

from __future__ import annotations

from typing import Any

import pytest

from driver.host.firewall import nft_listing
from driver.model.objects import Element

META = {"typeof": {"meta": {"key": "iifname"}}}
PAYLOAD = {"typeof": {"payload": {"protocol": "ip", "field": "saddr"}}}
BLOCK = {"prefix": {"addr": "10.2.0.0", "len": 16}}
PORT = {"concat": [6, 8081]}
TARGET = {"concat": ["10.2.44.3", 80]}
KEY, DATA = ["inet_proto", "inet_service"], ["ipv4_addr", "inet_service"]


@pytest.mark.parametrize(
    ("body", "element"),
    [
        ({"type": "ifname", "elem": ["fl-1"]}, Element("a", '"fl-1"')),
        ({"type": META, "elem": ["fl-1"]}, Element("a", '"fl-1"')),
        ({"type": "ipv4_addr", "elem": [BLOCK]}, Element("a", "10.2.0.0/16")),
        ({"type": PAYLOAD, "elem": [BLOCK]}, Element("a", "10.2.0.0/16")),
        (
            {"type": KEY, "map": " . ".join(DATA), "elem": [[PORT, TARGET]]},
            Element("a", "tcp . 8081", "10.2.44.3 . 80"),
        ),
        (
            {"type": KEY, "map": DATA, "elem": [[PORT, TARGET]]},
            Element("a", "tcp . 8081", "10.2.44.3 . 80"),
        ),
    ],
)
def test_the_forms_of_1_0_and_1_1(body: dict[str, Any], element: Element) -> None:
    assert list(nft_listing.elements({"name": "a", **body})) == [element]
