"""`docker flannel ps`: which container has which addresses."""

from __future__ import annotations

from typing import Any

from driver.api.status import document
from driver.cli.ps import render, rows
from driver.cli.status import add_names
from driver.cli.status import render as render_status
from driver.docker.engine import Container, Names
from tests.unit.plugin import Setting
from tests.unit.short import FOREIGN, NET, create, start


def doc(on: Setting) -> dict[str, Any]:
    return document(on.bench.core)


def test_both_addresses_and_what_docker_calls_them(on: Setting) -> None:
    heads = "NETWORK BRIDGE CONTAINER ENDPOINT SANDBOX DOCKER ADDRESS LEASE ADDRESS"
    assert " ".join(render(rows(doc(on), Names())).split()) == heads
    create(on, FOREIGN)
    end = start(on, 1, "172.18.0.2/16")
    native = on.docker.start(on.docker.create_network())
    found = rows(doc(on), Names({NET: "app"}, {end: Container("8" * 64, "web")}))
    assert found == [
        {
            "network": native.net.id,
            "network_name": None,
            "bridge": f"fl-{native.net.id[:12]}",
            "container": None,
            "name": None,
            "endpoint": native.id,
            "sandbox": native.id[:12],
            "docker_address": "10.2.0.34/27",
            "lease_address": "10.2.0.34/27",
        },
        {
            "network": NET,
            "network_name": "app",
            "bridge": f"fl-{NET[:12]}",
            "container": "8" * 64,
            "name": "web",
            "endpoint": end,
            "sandbox": end[:12],
            "docker_address": "172.18.0.2/16",
            "lease_address": "10.2.0.2/27",
        },
    ]
    _, unknown, known = (line.split() for line in render(found).splitlines())
    assert unknown[:3] == [native.net.id[:12], f"fl-{native.net.id[:12]}", "-"]
    assert known == [
        "app", f"fl-{NET[:12]}", "web", end[:12], end[:12], "172.18.0.2/16", "10.2.0.2/27",
    ]  # fmt: skip
    table = render_status(add_names(doc(on), Names()))
    lines = [" ".join(line.split()) for line in table.splitlines()]
    assert any(line.endswith(f" fl-{NET[:12]} Docker's gateway 172.18.0.1") for line in lines)
    assert f"{end[:12]} - {NET[:12]} 172.18.0.2/16 10.2.0.2/27" in lines
