"""`docker flannel ps`: which container has which addresses."""

from __future__ import annotations

from typing import Any

from driver.ps import render, rows
from driver.status import document
from driver.status import render as render_status
from tests.unit.plugin import Setting
from tests.unit.test_short_form import FOREIGN, NET, create, start


def doc(on: Setting) -> dict[str, Any]:
    return document(on.bench.core)


def test_both_addresses_and_what_docker_calls_them(on: Setting) -> None:
    assert render(rows(doc(on))).split() == [
        "NETWORK", "BRIDGE", "ENDPOINT", "SANDBOX", "DOCKER'S", "ADDRESS", "LEASE", "ADDRESS",
    ]  # fmt: skip
    create(on, FOREIGN)
    end = start(on, 1, "172.18.0.2/16")
    native = on.docker.start(on.docker.create_network())
    found = rows(doc(on))
    assert found == [
        {
            "network": native.net.id,
            "bridge": f"fl-{native.net.id[:12]}",
            "endpoint": native.id,
            "sandbox": native.id[:12],
            "docker_address": "10.2.0.34/27",
            "lease_address": "10.2.0.34/27",
        },
        {
            "network": NET,
            "bridge": f"fl-{NET[:12]}",
            "endpoint": end,
            "sandbox": end[:12],
            "docker_address": "172.18.0.2/16",
            "lease_address": "10.2.0.2/27",
        },
    ]
    assert render(found).splitlines()[2].split() == [
        NET[:12], f"fl-{NET[:12]}", end[:12], end[:12], "172.18.0.2/16", "10.2.0.2/27",
    ]  # fmt: skip
    text = render_status(doc(on))
    assert "used, MTU 1450, bridge fl-eeeeeeeeeeee, Docker's gateway 172.18.0.1\n" in text
    assert "  000000000001  10.2.0.2/27, Docker's 172.18.0.2/16,  on eeeeeeeeeeee\n" in text
