"""The options a user types at `docker network create`."""

from __future__ import annotations

from typing import Any

import pytest

from driver.api.body import ENABLE_IPV4, Body
from driver.api.options import (
    INTERFACE,
    MASQUERADE,
    MTU,
    PUBLISH,
    SIZE,
    SOURCES,
    block_prefix,
    ipam_prefix,
    network_options,
)
from driver.errors import BadRequest


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {}),
        ({MTU: "1400"}, {"mtu": 1400}),
        ({MTU: "576"}, {"mtu": 576}),
        ({MTU: "65535"}, {"mtu": 65535}),
        ({MASQUERADE: "false"}, {"masquerade": False}),
        ({MASQUERADE: "true"}, {}),
        ({INTERFACE: "net"}, {"interface_prefix": "net"}),
        ({INTERFACE: "a" * 12}, {"interface_prefix": "a" * 12}),
        ({ENABLE_IPV4: "false", SIZE: "/26"}, {}),
        ({PUBLISH: "docker"}, {"publish": "docker"}),
        ({PUBLISH: "flannel"}, {}),
        ({SOURCES: "any"}, {"any_source": True}),
    ],
)
def test_options_are_read(options: dict[str, str], changed: dict[str, Any]) -> None:
    defaults = {"mtu": 1450, "masquerade": True, "interface_prefix": "eth", "publish": "flannel"}
    defaults["any_source"] = False
    assert network_options(Body(options), 1450) == {**defaults, **changed}


BAD = {
    MTU: ["", "575", "65536", "-1", "1450 ", "1e3", "0x5dc", "²", "١٤٥٠", "9" * 5000],
    MASQUERADE: ["", "True", "1", "yes", "false "],
    SOURCES: ["", "Any", "none", "any ", "10.2.0.0/16"],
    PUBLISH: ["", "Docker", "none", "docker ", "flannel,docker"],
    INTERFACE: ["", "1eth", "a" * 13, "eth/0", "et h", "../x", "éth", "eth\n"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_a_bad_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match=f"^option {name} ") as caught:
        network_options(Body({name: value}), 1450)
    assert repr(value)[:60] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadRequest) as caught:
        network_options(Body({"com.docker.network.bridge.name": "br0"}), 1450)
    assert str(caught.value) == (
        "option -o 'com.docker.network.bridge.name' is unknown; these are known: "
        f"{MTU}, {MASQUERADE}, {INTERFACE}, {SIZE}, {PUBLISH}, {SOURCES}"
    )
    with pytest.raises(BadRequest) as caught:
        ipam_prefix(Body({"flannel.sise": "/26"}))
    assert str(caught.value) == (
        "option --ipam-opt 'flannel.sise' is unknown; these are known: flannel.size"
    )


@pytest.mark.parametrize("value", [1, True, [], {}])
def test_an_option_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="is not a text"):
        network_options(Body({MTU: value}), 1450)
    with pytest.raises(BadRequest, match="is not a text"):
        ipam_prefix(Body({SIZE: value}))


@pytest.mark.parametrize(
    ("options", "prefix"), [({}, None), ({SIZE: "/26"}, 26), ({SIZE: "26"}, 26), ({SIZE: "/0"}, 0)]
)
def test_the_size_of_the_block_is_read(options: dict[str, str], prefix: int | None) -> None:
    assert ipam_prefix(Body(options)) == prefix
    assert block_prefix(Body({MTU: "1400", **options})) == prefix


@pytest.mark.parametrize("value", ["", "/", "//26", "-26", "26 ", "64k", "/²", "9" * 5000])
def test_another_size_is_refused(value: str) -> None:
    with pytest.raises(BadRequest, match=r"^option flannel.size .* is not a prefix length like"):
        ipam_prefix(Body({SIZE: value}))
