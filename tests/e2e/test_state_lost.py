"""The state is lost, damaged, old or deleted under the plugin, and nothing that runs notices."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.bed import Host, Node, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e import managed
from tests.e2e.helpers import (
    FLANNEL,
    address,
    answers,
    container,
    counted,
    inspect,
    pings,
    status,
    web,
)
from tests.e2e.leaving import as_it_was

# of each kind: Docker's words, and a host port
KINDS = {
    "app": (FLANNEL, 8080),
    "plain": (("-d", "flannel"), 8081),
    "own": (("-d", "flannel", "--ipam-driver", "null"), 8082),
}


class Site:
    """Networks of all kinds with a container each, and an internal one."""

    def __init__(self, host: Host, visitor: Node) -> None:
        self.host, self.visitor = host, visitor
        self.state = host.state_dir / "state.db"
        self.ips: dict[str, str] = {}
        for name, (options, port) in KINDS.items():
            host.docker("network", "create", *options, name)
            self.ips[name] = web(host, f"web-{name}", name, "-p", f"{port}:80")
        host.docker("network", "create", *FLANNEL, "--internal", "inner")
        self.ips["inner"] = web(host, "web-inner", "inner")
        self.ips["peer"] = container(host, "peer", "app")
        self.known = wait_for(self.rows, "all lease addresses")

    def rows(self) -> dict[str, str]:
        """Return the endpoints' addresses as the status tells, and their ports."""
        return {e["id"]: f"{e['address']} {e['ports']}" for e in status(self.host)["endpoints"]}

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep pings and a connection going, which must not lose anything."""
        host, ips = self.host, self.ips
        with ExitStack() as stack:
            for name, target in [
                ("peer", ips["app"]),
                ("peer", self.visitor.address),
                ("web-plain", self.visitor.address),
                ("web-own", self.visitor.address),
            ]:
                stack.enter_context(counted(host, name, target))
            stack.enter_context(managed.conversation(host, "peer", ips["app"]))
            yield
            self.works()

    def works(self) -> None:
        """Ports answer, and what is closed is closed."""
        for name, (_, port) in KINDS.items():
            url = f"http://{self.host.address}:{port}/"
            wait_for(lambda: self.visitor.reaches(url), f"the port of {name}")
            assert self.visitor.fetch(url).strip() == f"web-{name}"
        for name in ("inner", "own"):
            assert not answers(self.host, "peer", self.ips[name])
        assert not answers(self.host, "web-inner", self.visitor.address)

    def known_again(self) -> None:
        """The status knows all that ran before, and has nothing to say against it."""
        assert self.rows() == self.known
        assert status(self.host)["problems"] == []

    def adopted(self) -> None:
        """The status tells what was taken over."""
        told = [entry["what"] for entry in status(self.host)["repaired"]]
        assert all(any(i[:12] in line for line in told) for i in self.known), told
        self.known_again()


@pytest.fixture
def site(running: Host, visitor: Node) -> Iterator[Site]:
    """Yield the networks and containers; in the end Docker takes all of it away."""
    with as_it_was(running) as host:
        made = Site(host, visitor)
        managed.serve_lines(host, "web-app")
        yield made
        # what was taken over is as good as what was made: it stops, starts and goes
        names = [f"web-{name}" for name in (*KINDS, "inner")]
        host.docker("stop", "-t", "0", *names)
        assert len(status(host)["endpoints"]) == 1
        host.docker("start", *names)
        made.works()
        for name in KINDS:
            new = container(host, "new", name)
            assert new not in made.ips.values()
            assert pings(host, "new", "192.0.2.1" if name == "own" else f"web-{name}")
            host.docker("rm", "-f", "new")
        host.docker("rm", "-f", "peer", *names)
        host.docker("network", "rm", *KINDS, "inner")
        left = status(host)
        assert (left["networks"], left["endpoints"], left["blocks_of_others"]) == ([], [], [])
        assert left["problems"] == []


def empty(site: Site) -> None:
    """Start with an empty folder."""
    site.host.stop_plugin()
    shutil.rmtree(site.host.state_dir)
    site.host.start_plugin()
    site.adopted()


def older(site: Site) -> None:
    """Start with a copy of the folder, made while the plugin ran, from before a network came."""
    host, copy = site.host, site.host.folder / "copy"
    shutil.copytree(host.state_dir, copy)
    host.docker("network", "create", *FLANNEL, "late")
    late = web(host, "late", "late", "-p", "8083:80")
    host.stop_plugin()
    shutil.rmtree(host.state_dir)
    copy.rename(host.state_dir)
    with counted(host, "late", site.visitor.address):
        host.start_plugin()
        assert late in [e["address"].partition("/")[0] for e in status(host)["endpoints"]]
        assert site.visitor.fetch(f"http://{host.address}:8083/").strip() == "late"
    host.docker("rm", "-f", "late")
    host.docker("network", "rm", "late")
    site.known_again()


def deleted(site: Site) -> None:
    """Delete the folder while the plugin runs; the next call writes it anew."""
    host = site.host
    shutil.rmtree(host.state_dir)
    container(host, "new", "app")
    wait_for(site.state.exists, "the state to be written anew")
    host.docker("rm", "-f", "new")
    assert host.plugin_log().count("written anew") == 1
    host.kill_plugin()
    host.start_plugin()
    site.known_again()


def damaged(site: Site) -> None:
    """Start with half a file: every call tells how to go on. Then put a copy back."""
    host, kept = site.host, site.host.folder / "kept.db"
    flannel = (sys.executable, "-m", "driver")
    where = ("--state-dir", host.state_dir)
    host.run(*flannel, "backup", kept, *where, cwd=PROJECT)
    refused = host.run(*flannel, "restore", kept, *where, cwd=PROJECT, check=False)
    assert "another docker-flannel works on" in refused.stderr
    host.stop_plugin()
    for beside in host.state_dir.glob("state.db-*"):
        beside.unlink()
    site.state.write_bytes(kept.read_bytes()[:-4096])
    host.start_plugin()
    said = host.docker("network", "create", *FLANNEL, "more", check=False).stderr
    assert "docker-flannel restore" in said
    assert "move it away" in said
    site.works()
    host.stop_plugin()
    host.run(*flannel, "restore", kept, *where, cwd=PROJECT)
    host.start_plugin()
    site.known_again()


def test_a_lost_state_cuts_nothing(site: Site) -> None:
    with site.undisturbed():
        for damage in (empty, older, deleted, damaged):
            damage(site)
            site.works()


def test_where_the_host_shows_nothing_docker_is_asked(site: Site) -> None:
    """The machine has restarted, and its state is lost."""
    host, names = site.host, [f"web-{name}" for name in (*KINDS, "inner")]
    host.docker("stop", "-t", "0", "peer", *names)
    host.stop_plugin()
    shutil.rmtree(host.state_dir)
    for network in (*KINDS, "inner"):
        host.run("ip", "link", "del", f"fl-{inspect(host, 'network', network)['Id'][:12]}")
    host.run("nft", "delete", "table", "inet", "docker_flannel")
    host.start_plugin()
    refused = host.docker("start", "web-app", check=False).stderr
    assert "`docker flannel adopt`" in refused
    told = host.run(sys.executable, "-m", "driver", "adopt", cwd=PROJECT).stdout
    assert told.count("taken over: network") == len(names)
    host.docker("start", "peer", *names)
    site.ips = {name: address(host, f"web-{name}", name) for name in (*KINDS, "inner")}
    site.works()
