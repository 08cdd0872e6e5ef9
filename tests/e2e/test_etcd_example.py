"""The etcd of packaging/examples, made by the commands of its text."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests import pages
from tests.bed import Bed, Node, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.members import UNIT, machine
from tests.e2e.outage import status

EXAMPLES = PROJECT / "packaging" / "examples"
PATH = {"PATH": f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}  # with docker-flannel
[MAKE] = pages.blocks("packaging/examples/etcd.md", "Certificates")
SETTINGS, INIT = pages.blocks("packaging/examples/etcd.md", "The hosts")


def test_the_etcd_of_the_examples_takes_the_hosts_and_nobody_else(bed: Bed) -> None:
    store, host, stranger = (
        bed.client("etcd"),
        machine(bed, "h1", docker=False),
        bed.client("stranger"),
    )

    def here(text: str) -> str:
        return text.replace("192.0.2.1", store.address)

    made = bed.folder / "etcd-certificates"
    store.run("sh", "-euc", here(MAKE), cwd=bed.folder)
    for node, folder, names in (
        (store, "/etc/etcd", ("ca.pem", "server.pem", "server.key")),
        (host, "/etc/docker-flannel", ("ca.pem", "client.pem", "client.key")),
    ):
        node.run("mkdir", "-p", folder)
        node.run("cp", *(made / name for name in names), folder)
    unit = (EXAMPLES / "etcd.service").read_text().replace("\\\n", "")
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    store.popen(*here(command).split(), log_name="etcd")
    settings = Path("/etc/default/docker-flannel")
    host.run("mkdir", "-p", settings.parent)
    host.run("tee", settings, input=here(SETTINGS))
    host.run("ip", "link", "add", "docker0", "type", "bridge")
    wait_for(lambda: host.run("sh", "-ec", INIT, env=PATH, check=False).ok, "etcd")
    wait_for(lambda: status(host)["phase"] == "held", "a lease")
    assert status(host)["warnings"] == []

    def writes(node: Node, address: str, *certificates: str) -> bool:
        ask = ("etcdctl", "--endpoints", f"https://{address}:2379", "--command-timeout=5s")
        trust = ("--cacert", str(made / "ca.pem"), *certificates)
        return node.run(*ask, *trust, "put", "/x", "y", env={"ETCDCTL_API": "3"}, check=False).ok

    client = ("--cert", str(made / "client.pem"), "--key", str(made / "client.key"))
    assert writes(stranger, store.address, *client)
    assert not writes(stranger, store.address)
    assert not writes(store, "127.0.0.1", *client), "it listens on the LAN alone"
    host.run("systemctl", "stop", UNIT)
    host.run("rm", settings)
    open_to_all = f"http://{store.address}:2379"
    host.start_plugin({"FLANNELD_ETCD_ENDPOINTS": open_to_all})
    told = status(host)["warnings"]
    assert len(told) == 1
    assert f"etcd at {open_to_all} asks for no client certificate and no login" in told[0]
    assert "containers on docker0 may reach it" in told[0]
    shown = host.run(sys.executable, "-m", "driver", "status", cwd=PROJECT).stdout
    assert f"WARNING\n{told[0]}\n" in shown
