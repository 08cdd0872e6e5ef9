"""What the plugin made on a host is taken away, and nothing that runs is cut."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from driver import removal
from driver.config import Basics
from driver.errors import Conflict
from driver.flannel.subnet_env import MARK
from driver.host.firewall.forward_gate import CHAIN, ForwardGates
from driver.host.journal import NAME, SqliteJournal
from driver.host.links import Links
from driver.host.lock import Lock
from driver.host.loopback import LoopbackGuards
from driver.model.firewall import ForwardGate
from driver.model.objects import LoopbackGuard, Plan, Veth, diff
from tests.kernel.firewalls import legacy_tables
from tests.kernel.namespaces import Namespace
from tests.kernel.netlink.sample import ALL, BRIDGE, N1, V1
from tests.kernel.overlays.sample import everything
from tests.kernel.sample import WANTED

pytestmark = pytest.mark.kernel

LEASE_FILE = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.10.1/24\nFLANNEL_MTU=1450\n"


@pytest.fixture
def basics(tmp_path: Path) -> Basics:
    return Basics((), tmp_path / "state", tmp_path / "subnet.env", "info")


def rules(host: Namespace) -> str:
    """List the rules that are there, whoever made them; Docker's chains have none."""
    shown = host.run("iptables-nft-save") + host.run("nft", "list", "tables")
    shown += host.run("iptables-legacy-save") if legacy_tables(host) else ""
    return "".join(line for line in shown.splitlines(keepends=True) if "FLANNEL" in line.upper())


@pytest.mark.usefixtures("full")
def test_nothing_is_left(host, make_firewall, basics):
    host.ip("link add foreign type bridge", "route add unreachable 10.99.0.0/16 proto 91")
    basics.subnet_file.write_text(f"{MARK}\n{LEASE_FILE}")
    with closing(Links()) as links, closing(make_firewall()) as firewall:
        links.apply(diff((), {item for item in ALL if not isinstance(item, Veth)}))
        firewall.apply(diff(firewall.observe(), WANTED))
    with closing(LoopbackGuards()) as guards:
        guards.apply(Plan(add=(LoopbackGuard(BRIDGE.name, routed=True),)))
    variant = "legacy" if legacy_tables(host) else "nft"
    ForwardGates().apply(Plan(add=(ForwardGate(variant, bridged=False),)))
    host.run(
        f"iptables-{variant}", "-w", "-A", CHAIN, "-j", "RETURN"
    )  # a gate that somebody changed
    assert rules(host)
    assert removal.take_down(basics)
    assert rules(host) == ""
    left = "".join(everything(host))
    assert "flannel.1" not in left
    assert "fl-" not in left
    assert "foreign" in left, "what is not ours stays"
    assert left.count("proto 91") == 1, "and so does a route without our metric"
    assert not basics.subnet_file.exists()


@pytest.mark.usefixtures("host")
def test_the_file_of_a_flanneld_stays(basics):
    basics.subnet_file.write_text(LEASE_FILE)
    assert removal.take_down(basics)
    assert basics.subnet_file.read_text() == LEASE_FILE


@pytest.mark.usefixtures("host")
def test_it_refuses_while_the_state_has_a_network(basics):
    with closing(SqliteJournal(basics.state_dir / NAME)) as journal:
        journal.commit([N1], (), durable=True)
    for attempt in (removal.check_unused, removal.take_down):
        with pytest.raises(
            Conflict, match="exist: 1, with 0 running containers; remove them first"
        ):
            attempt(basics)


def test_it_refuses_while_a_container_runs_that_the_state_has_not(host, namespace, basics):
    with closing(Links()) as links:
        links.apply(diff((), ALL))
        host.ip(f"link set {V1.container_end} netns {namespace().path}")
        before = links.observe()
        with pytest.raises(Conflict, match="exist: 0, with 1 running"):
            removal.take_down(basics)
        assert links.observe() == before


@pytest.mark.usefixtures("host")
def test_it_refuses_while_the_service_runs(basics):
    held = Lock(basics.state_dir)
    held.take()
    removal.check_unused(basics)
    with pytest.raises(Conflict, match="stop it first"):
        removal.take_down(basics)


@pytest.mark.usefixtures("full")
def test_the_managed_plugins_host_stays_as_it_is(host, basics, monkeypatch):
    lock = Lock(basics.state_dir)
    with monkeypatch.context() as as_managed_plugin:
        as_managed_plugin.setattr("os.getpid", lambda: 1)
        lock.take()
    with closing(SqliteJournal(basics.state_dir / NAME)) as journal:
        journal.commit([N1], (), durable=True)
    before = everything(host)
    removal.check_unused(basics)
    assert not removal.take_down(basics)
    assert everything(host) == before
