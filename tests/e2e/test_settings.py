"""Settings that are changed after the service has taken a lease: named, applied, shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest

from driver.flannel.lease_types import REMOVE
from driver.setup.settings_file import OURS
from tests.bed import Host, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import network, pings, status, web
from tests.e2e.overlay import World, empty_world, lease

COMMAND = (sys.executable, "-m", "driver")
STANDALONE = "# before etcd\nDOCKER_FLANNEL_NETWORK=10.7.0.0/16\n"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with empty_world("vxlan") as made:
        yield made


def setting(host: Host, text: str) -> None:
    """Write the settings' file."""
    host.run("mkdir", "-p", OURS.parent)
    host.run("tee", OURS, input=text)


def config(host: Host) -> dict[str, Any]:
    """Return what `config` shows, by variable."""
    shown = json.loads(host.run(*COMMAND, "config", "--format", "json", cwd=PROJECT).stdout)
    assert shown["running"]
    assert shown["problems"] == []
    return {s["variable"]: s for s in shown["settings"]}


def restart(host: Host) -> None:
    host.stop_plugin()
    host.start_plugin()


def standalone(world: World, name: str) -> Host:
    """Add a host that has taken a lease of its own."""
    host = world.host(name)
    setting(host, STANDALONE)
    host.start_plugin()
    host.start_dockerd()
    host.load_image()
    assert (lease(host)["source"], lease(host)["network"]) == ("standalone", "10.7.0.0/16")
    return host


def test_a_lease_that_nothing_uses_is_replaced(world: World) -> None:
    host = standalone(world, "h1")
    setting(host, f"FLANNELD_ETCD_ENDPOINTS={world.url}\n")
    shown = config(host)["FLANNELD_ETCD_ENDPOINTS"]
    assert (shown["value"], shown["from"], shown["in_effect"]) == ("", "default", False)
    assert shown["note"] == f"from the next restart: {world.url} ({OURS})"
    restart(host)
    wait_for(lambda: lease(host).get("source") == "etcd", "a lease from etcd")
    assert status(host)["problems"] == []
    shown = config(host)["FLANNELD_ETCD_ENDPOINTS"]
    assert (shown["value"], shown["from"], shown["in_effect"]) == (world.url, str(OURS), True)

    checked = json.loads(host.run(*COMMAND, "check", "--format", "json", cwd=PROJECT).stdout)
    told = {row["check"]: row["what"] for row in checked["checks"] if row["result"] == "ok"}
    assert checked["failed"] == 0
    assert told["etcd"] == f"{world.url} answers"
    assert told["interface"].startswith(f"other hosts reach this one by eth0, {host.address}")
    assert told["Docker"].startswith("Docker ")
    assert {"kernel", "firewall", "UDP port"} <= told.keys()
    world.etcd.cable(up=False)
    refused = host.run(*COMMAND, "check", cwd=PROJECT, check=False)
    world.etcd.cable(up=True)
    assert refused.code == 1
    assert world.url in refused.stdout


def test_a_lease_that_networks_use_is_kept_until_they_are_removed(world: World) -> None:
    host = standalone(world, "h2")
    block = network(host, "app")
    ip = web(host, "one", "app")
    web(host, "two", "app")
    setting(host, f"{STANDALONE}FLANNELD_ETCD_ENDPOINTS={world.url}\n")
    restart(host)
    wait_for(lambda: status(host)["phase"] == "held", "etcd's answer")
    net = host.docker("network", "inspect", "-f", "{{.Id}}", "app").stdout[:12]
    held = lease(host)["subnet"]
    told = (
        f"the settings ask for a lease from etcd, but {held} from standalone is in use: network "
        f"{net} (app); it is kept until they are removed ({REMOVE})"
    )
    assert told in status(host)["problems"]
    log = host.plugin_log().replace(" (app)", "")
    assert told.replace(" (app)", "") in log, "at the start"
    unmet = {name: s["note"] for name, s in config(host).items() if not s["in_effect"]}
    assert list(unmet) == ["FLANNELD_ETCD_ENDPOINTS"]
    assert f"networks use {held} of 10.7.0.0/16 from standalone" in unmet.popitem()[1]
    assert pings(host, "two", ip), "nothing was cut"
    assert block.subnet_of(IPv4Network(held))

    host.docker("rm", "-f", "one", "two")
    host.docker("network", "rm", "app")
    wait_for(lambda: lease(host).get("source") == "etcd", "a lease from etcd")
    assert network(host, "app").subnet_of(IPv4Network("10.2.0.0/16"))
    assert status(host)["problems"] == []
    assert all(s["in_effect"] for s in config(host).values())
