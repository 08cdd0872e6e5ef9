"""dockerd's settings for a lease."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

import pytest

from driver.api.status import document
from driver.cli.docker_opts import render
from driver.errors import Unavailable
from driver.flannel.docker_options import options
from tests.unit.bench import make_core

NET = IPv4Network("10.5.34.0/24")


def status(**lease: Any) -> dict[str, Any]:
    doc = document(make_core().core)
    return {**doc, "lease": {**doc["lease"], **lease}}


def daemon_json(text: str) -> Any:
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


@pytest.mark.parametrize(
    ("subnet", "size"),
    [("10.2.0.0/20", 26), ("10.5.34.0/24", 27), ("10.5.34.0/28", 29), ("10.5.34.8/29", 29)],
)
def test_pools_are_cut_as_blocks_are(subnet: str, size: int) -> None:
    assert daemon_json(render(status(subnet=subnet))) == {
        "bip": "172.17.0.1/16",
        "default-address-pools": [{"base": subnet, "size": size}],
    }


def test_the_classic_line() -> None:
    lines = render(status(subnet=str(NET), mtu=1450)).splitlines()
    assert "--bip=10.5.34.1/24 --ip-masq=true --mtu=1450" in lines


def test_who_masquerades_is_not_known_beside_flanneld() -> None:
    lines = render(status(subnet=str(NET), mtu=1450, source="subnet-file")).splitlines()
    assert "--bip=10.5.34.1/24 --mtu=1450" in lines
    assert "# and --ip-masq=false where flanneld has --ip-masq" in lines


@pytest.mark.parametrize(
    ("ipmasq", "option"), [(True, "--ip-masq=false"), (False, "--ip-masq=true")]
)
def test_only_one_masquerades(ipmasq: bool, option: str) -> None:
    assert options(NET, 1450, ipmasq=ipmasq)["IPMASQ"] == option


def test_no_lease() -> None:
    doc = {**status(), "lease": None, "phase": "waiting"}
    with pytest.raises(Unavailable, match=r"no flannel lease yet \(waiting\); `docker-flannel"):
        render(doc)
