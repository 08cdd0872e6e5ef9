"""The managed plugin on a host alone, without etcd, and what each of its privileges is for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Bed, Host, assert_no_leaks, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e import managed
from tests.e2e.helpers import FLANNEL, container, counted, enter, web
from tests.e2e.leaving import baseline
from tests.e2e.managed import NAME, SOCKET

SUBNET_ENV = """\
FLANNEL_NETWORK=10.9.0.0/16
FLANNEL_SUBNET=10.9.5.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
LEVELS = {"DEBUG": "info", "INFO": "info", "WARNING": "error"}  # of a line, and of dockerd's


@pytest.fixture(scope="module")
def alone(bed: Bed) -> Iterator[Host]:
    """Yield a host that has its state where it outlives a reboot; uninstall at the end."""
    host = bed.host("h1")
    host.start_dockerd()
    host.load_image()
    host.docker("run", "--rm", "-p", "7:7", "box", "true")
    managed.serve_registry(host, bed.folder / "registry")
    managed.publish(host, managed.built())
    before = baseline(host)
    (host.folder / "lib").mkdir()
    settings = (f"state.source={host.folder / 'lib'}", "DOCKER_FLANNEL_LOG_LEVEL=debug")
    managed.install(host, *settings)
    yield host
    host.docker("run", "--rm", "-p", "7:7", "box", "true")  # dockerd is another one by now
    host.docker("plugin", "disable", NAME)
    host.docker("plugin", "rm", NAME)
    ignored = ("docker: network *", "*FORWARD*DOCKER-USER*")  # Docker's own, when it starts anew
    assert_no_leaks(host, before, ignore=ignored)
    assert host.run("ls", "/run/docker/plugins").stdout == ""


def test_the_machine_restarts(alone: Host) -> None:
    alone.docker("network", "create", *FLANNEL, "app")
    web(alone, "web", "app", "-p", "8081:80", "--restart", "always")
    alone.reboot()
    alone.restart_dockerd()
    wait_for(lambda: alone.reaches("http://127.0.0.1:8081/"), "the container that came back")
    assert managed.status(alone)["problems"] == []
    alone.docker("rm", "-f", "web")
    alone.docker("network", "rm", "app")


def test_only_what_is_wrong_is_an_error_in_dockerds_log(alone: Host) -> None:
    (alone.folder / "lib/docker-flannel/state.db").unlink()
    body = json.dumps({"EndpointID": "x" * 100_000})  # dockerd reads no further after such a line
    ask = ("curl", "-sS", "--unix-socket", SOCKET, "-d@-", "http://flannel/NetworkDriver.Join")
    assert "is not 12 to 64" in alone.run(*ask, input=body).stdout
    alone.docker("network", "create", *FLANNEL, "app")
    alone.docker("network", "rm", "app")
    wait_for(lambda: said(alone, "was removed or replaced"), "a warning")
    lines = said(alone, "driver.")
    assert said(alone, "call=NetworkDriver.Join refused: EndpointID") != []
    assert said(alone, " more characters") != []
    for word, level in LEVELS.items():
        assert {line.split("level=")[1].split()[0] for line in lines if f'"{word} ' in line} == {
            level
        }


def said(host: Host, words: str) -> list[str]:
    """Return the lines with these words that the plugin has in dockerd's log."""
    assert host.dockerd is not None
    return [line for line in host.dockerd.log().splitlines() if "plugin=" in line and words in line]


LEVELS = {
    "DEBUG": "info",
    "INFO": "info",
    "WARNING": "error",
}  # of a line, and of dockerd's line with it


def test_an_upgrade_that_puts_the_folder_back_loses_nothing(alone: Host) -> None:
    """Docker sets `state.source` back to the default, and so would the state be another."""
    if not alone.reaches(f"http://{managed.REGISTRY}/v2/"):  # since the machine restarted
        managed.serve_registry(alone, alone.folder.parent / "registry")
    alone.docker("network", "create", *FLANNEL, "app")
    alone.docker("network", "create", "-d", "flannel", "plain")
    peer = container(alone, "peer", "app")
    web(alone, "web", "app", "-p", "8081:80")
    container(alone, "other", "plain")
    alone.docker("stop", "-t", "0", "other")
    before = known(alone)
    with counted(alone, "web", peer):
        options = ("--grant-all-permissions", "--skip-remote-check", NAME)
        alone.docker("plugin", "disable", "--force", NAME)
        alone.docker("plugin", "upgrade", *options, f"{managed.REFERENCE}:next")
        alone.docker("plugin", "enable", NAME)
        assert alone.run("ls", f"{managed.STATE}/state.db").ok, "another folder now"
        assert known(alone) == before
    assert alone.reaches("http://127.0.0.1:8081/")
    assert managed.status(alone)["problems"] == []
    alone.docker("start", "other")
    alone.docker("rm", "-f", "web", "peer", "other")
    alone.docker("network", "rm", "app", "plain")
    alone.docker("plugin", "disable", NAME)
    alone.docker("plugin", "rm", NAME)
    older = alone.folder / "lib/docker-flannel"
    alone.run("rm", "-r", managed.STATE, older)
    managed.install(alone, f"state.source={alone.folder / 'lib'}")


def known(host: Host) -> tuple[Any, ...]:
    """Return what the state has of networks and containers."""
    found = managed.status(host)
    lists = [sorted(found[name], key=lambda row: row["id"]) for name in ("networks", "endpoints")]
    return found["lease"], *lists


def test_it_starts_without_etcd(alone: Host) -> None:
    try:
        with_setting(alone, "FLANNELD_ETCD_ENDPOINTS=http://192.0.2.250:2379")
        assert managed.plugin(alone)["Enabled"]
        wait_for(lambda: managed.status(alone)["phase"] == "unreachable", "the phase")
        refused = alone.docker("network", "create", *FLANNEL, "app", check=False)
        assert "this host has no flannel lease yet" in refused.stderr
    finally:
        with_setting(alone, "FLANNELD_ETCD_ENDPOINTS=")
    assert network_works(alone)


def with_setting(host: Host, setting: str) -> None:
    """Change a setting as the README says."""
    host.docker("plugin", "disable", NAME)
    host.docker("plugin", "set", NAME, setting)
    host.docker("plugin", "enable", NAME)


def network_works(host: Host) -> bool:
    made = host.docker("network", "create", *FLANNEL, "app", check=False)
    ran = host.docker("run", "--rm", "--network", "app", "box", "true", check=False)
    if made.ok:
        host.docker("network", "rm", "app")
    return made.ok and ran.ok


def localhost_is_routed(host: Host) -> bool:
    made = host.docker("network", "create", *FLANNEL, "app", check=False)
    port = ("--network", "app", "-p", "8080:80")
    ran = host.docker("run", "-d", "--name", "web", *port, "box", "sleep", "1000", check=False)
    values = host.run("sh", "-c", "cat /proc/sys/net/ipv4/conf/fl-*/route_localnet", check=False)
    host.docker("rm", "-f", "web", check=False)
    if made.ok:
        host.docker("network", "rm", "app")
    return made.ok and ran.ok and values.stdout.split() == ["1"]


def flanneld_is_found(host: Host) -> bool:
    host.run("mkdir", "-p", "/run/flannel")
    host.run("cp", "/dev/stdin", "/run/flannel/subnet.env", input=SUBNET_ENV)
    host.docker("plugin", "disable", NAME)
    host.docker("plugin", "enable", NAME)
    found: dict[str, Any] = managed.status(host)["lease"]
    host.run("rm", "-r", "/run/flannel")
    return bool(found["source"] == "subnet-file")


def state_is_kept(host: Host) -> bool:
    return (host.folder / "lib/docker-flannel/state.db").exists()


def plain_name_is_served(host: Host) -> bool:
    return host.path(SOCKET).exists()


def lease_address_is_set(host: Host) -> bool:
    """Whether a container gets one beside Docker's: then the plugin comes into its sandbox."""
    host.docker("network", "create", "-d", "flannel", "app")
    container(host, "short", "app")

    def found() -> str:
        problems = managed.status(host)["problems"]
        shown = host.run(*enter(host, "short"), "ip", "-o", "-4", "addr").stdout
        return "set" if "inet 10.2." in shown else "".join(problems)

    seen = wait_for(found, "the lease address, or what is wrong")
    host.docker("rm", "-f", "short")
    host.docker("network", "rm", "app")
    assert seen == "set" or "lacks its lease address 10.2." in seen
    return seen == "set"


def test_it_sees_of_the_host_what_it_works_on(alone: Host) -> None:
    pids = alone.run("pgrep", "-f", "^/opt/docker-flannel/bin/python.* serve").stdout.split()
    assert len(pids) == 2, "gunicorn's main process and its worker"
    for pid in pids:
        root = Path(f"/proc/{pid}/root")
        seen = alone.run("cut", "-d", " ", "-f", "5", f"/proc/{pid}/mountinfo").stdout.split()
        below = {path for path in seen if path.startswith(("/run", "/var", "/host"))}
        assert {path for path in below if "/netns/" not in path} == {
            "/run/docker/netns",
            "/run/docker/plugins",
            "/run/flannel",
            "/run/xtables.lock",
            "/var/lib/docker-flannel",
            "/host/kept",
            "/host/plugins",
            "/host/proc/sys/net",
        }
        shown = alone.run("ls", root / "run").stdout.split()
        assert set(shown) - {"lock", "mount"} == {"docker", "flannel", "xtables.lock"}, "Debian's"
        assert set(alone.run("ls", root / "run/docker").stdout.split()) == {"netns", "plugins"}
    assert alone.path("/run/docker.sock").exists()


# what the plugin is granted, and what does not work without it
PRIVILEGES = {
    "CAP_NET_ADMIN": network_works,
    "CAP_SYS_ADMIN": lease_address_is_set,
    "host network": network_works,
    "plugins": plain_name_is_served,
    "state": state_is_kept,
    "sysctl": localhost_is_routed,
    "run": flanneld_is_found,
}


def granted(config: dict[str, Any]) -> set[str]:
    """List what a config asks for."""
    linux = config["linux"]
    assert not linux.get("allowAllDevices")
    assert not linux.get("devices")
    assert not config.get("pidhost")
    assert not config.get("ipchost")
    mounts = {mount["name"] for mount in config["mounts"]}
    return {*linux["capabilities"], f"{config['network']['type']} network", *mounts}


def test_every_privilege_is_known_and_all_together_are_enough(alone: Host) -> None:
    config = json.loads((PROJECT / "plugin/config.json").read_text())
    assert granted(config) == set(PRIVILEGES)
    for name, works in PRIVILEGES.items():
        assert works(alone), name


@pytest.fixture(scope="module")
def stored(alone: Host) -> Iterator[tuple[Path, str]]:
    """Yield the file where Docker keeps the plugin's config, and its text; restored in the end."""
    file = managed.config_file(alone)
    whole = file.read_text()
    yield file, whole
    alone.stop_dockerd()
    file.write_text(whole)
    alone.restart_dockerd()


@pytest.mark.parametrize("name", PRIVILEGES)
def test_no_privilege_is_given_in_vain(alone: Host, stored: tuple[Path, str], name: str) -> None:
    file, whole = stored
    known = json.loads(whole)
    config = known["plugin"]["Config"]
    if name == "host network":
        config["Network"]["Type"] = ""
    elif name.startswith("CAP_"):
        config["Linux"]["Capabilities"].remove(name)
    else:
        for mounts in (config["Mounts"], known["plugin"]["Settings"]["Mounts"]):
            mounts[:] = [mount for mount in mounts if mount["Name"] != name]
    alone.stop_dockerd()
    (alone.folder / "lib/docker-flannel/state.db").unlink(missing_ok=True)
    file.write_text(json.dumps(known))
    alone.restart_dockerd()
    assert managed.plugin(alone)["Enabled"], "it starts without"
    assert not PRIVILEGES[name](alone)
