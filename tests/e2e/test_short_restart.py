"""`-d flannel` with nothing else when the plugin or dockerd stops and starts."""

from __future__ import annotations

import sys

from tests.bed import Host, Node, wait_for
from tests.e2e.helpers import container, enter, gets, inspect, status, web
from tests.e2e.leaving import as_it_was
from tests.e2e.short_form import create, has_both, lease_ip, ps, settled


def test_the_plugin_stops_and_starts(host: Host, visitor: Node) -> None:
    create(host, "app")
    web(host, "one", "app", "-p", "8080:80")
    container(host, "two", "app")
    before = {name: settled(host, name) for name in ("one", "two")}
    for end in (host.stop_plugin, host.kill_plugin):
        end()
        into = (*enter(host, "two"), "ip")
        host.run(*into, "addr", "del", f"{before['two']}/26", "dev", "eth0")
        host.run(*into, "rule", "del", "priority", "32000")
        host.start_plugin()
        assert {name: settled(host, name) for name in ("one", "two")} == before
        assert visitor.fetch(f"http://{host.address}:8080/").strip() == "one"
        container(host, "new", "app")
        assert settled(host, "new") not in before.values()
        host.docker("rm", "-f", "new")
    host.docker("restart", "one")
    assert settled(host, "one") == before["one"]
    wait_for(lambda: visitor.reaches(f"http://{host.address}:8080/"), "the port after a restart")


def test_dockerd_restarts(running: Host, visitor: Node) -> None:
    host = running
    with as_it_was(host):
        host.stop_dockerd()
        host.start_dockerd(live_restore=True)
        create(host, "app")
        web(host, "one", "app", "-p", "8080:80")
        lease = settled(host, "one")
        for end in (host.stop_dockerd, host.kill_dockerd):
            end()
            host.restart_dockerd()
            assert settled(host, "one") == lease
            assert visitor.fetch(f"http://{host.address}:8080/").strip() == "one"
            container(host, "new", "app")
            settled(host, "new")
            host.docker("rm", "-f", "new")
        host.docker("rm", "-f", "one")
        host.docker("network", "rm", "app")
        host.stop_dockerd()
        host.start_dockerd()


def test_dockerd_is_killed_and_its_containers_start_again(running: Host, visitor: Node) -> None:
    """With its own IPAM Docker tells nothing of those that died, and gives their addresses anew."""
    host = running
    with as_it_was(host):
        create(host, "app")
        web(host, "one", "app", "-p", "8080:80", "--restart", "always")
        settled(host, "one")
        host.kill_dockerd()
        host.restart_dockerd()
        wait_for(lambda: inspect(host, "container", "one")["State"]["Running"], "the container")
        settled(host, "one")
        wait_for(lambda: visitor.reaches(f"http://{host.address}:8080/"), "the port")
        wait_for(lambda: len(ps(host)) == 1, "the old endpoint to go")


BLIND = "mount -t tmpfs tmpfs /run/docker/netns && exec {python} -m driver serve"


def test_a_sandbox_that_the_plugin_cannot_see(host: Host, visitor: Node) -> None:
    host.stop_plugin()
    host.run("mkdir", "-p", "/run/docker/netns")
    script = BLIND.format(python=sys.executable)
    host.start_plugin(argv=["unshare", "-m", "--propagation", "private", "sh", "-c", script])
    create(host, "app")
    ip = web(host, "one", "app", "-p", "8080:80")
    container(host, "two", "app")
    assert gets(host, "two", f"http://{ip}/") == "one", "all but the lease address works"
    assert gets(host, "two", "http://one/") == "one"
    assert visitor.fetch(f"http://{host.address}:8080/").strip() == "one"
    lease = lease_ip(host, "one")
    said = f"lacks its lease address {lease}, and other hosts do not reach it: sandbox "
    wait_for(
        lambda: any(said in problem for problem in status(host)["problems"]),
        "the problem to be told",
    )
    assert not has_both(host, "one")
    host.stop_plugin()
    host.start_plugin()
    assert settled(host, "one") == lease
    assert status(host)["problems"] == []
