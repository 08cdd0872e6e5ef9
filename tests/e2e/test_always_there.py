"""Whatever is wrong at the start: the socket is there, and every call says what to do."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from driver.handlers import CALLS
from tests.bed import Bed, Host, wait_for
from tests.bed.host import PLUGIN_SOCKET
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import FLANNEL, SERVE

STATUS = (sys.executable, "-m", "driver", "status")
LIBRARY = "libnftables.so.1"


@pytest.fixture(scope="module")
def docked(bed: Bed) -> Host:
    """Return a host with dockerd and no plugin yet."""
    host = bed.host("h1")
    host.start_dockerd()
    return host


@pytest.fixture
def host(docked: Host) -> Iterator[Host]:
    """Return it, and stop the plugin afterwards."""
    yield docked
    docked.stop_plugin()
    assert not docked.path(PLUGIN_SOCKET).exists()


def start(host: Host, words: str, *wrap: str, **env: str) -> None:
    """Start the plugin with something wrong, and see that everybody is told."""
    notified = host.folder / "notify"
    notified.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(notified))
        listener.settimeout(30)
        host.start_plugin({"NOTIFY_SOCKET": str(notified), **env}, [*wrap, *SERVE])
        while b"READY=1" not in listener.recv(1000):
            pass
    told(host, words)


def told(host: Host, words: str) -> None:
    """See that every call, Docker's user and the command line get the sentence."""
    for method in CALLS:
        status, answer = host.call(method, {"NetworkID": "a" * 64}, limit_s=2)
        assert status not in (200, 404), method
        assert words in answer["Err"], answer
        assert answer["Err"].isprintable()
    refused = host.docker("network", "create", *FLANNEL, "app", check=False, limit_s=10)
    assert words in refused.stderr
    shown = host.run(*STATUS, cwd=PROJECT, check=False)
    assert (shown.code, shown.stdout) == (1, "")
    assert shown.stderr.startswith("docker-flannel: ")
    assert words in shown.stderr
    assert shown.stderr.count("\n") == 1


def serves(host: Host) -> bool:
    """Whether networks can be made."""
    made = host.docker("network", "create", *FLANNEL, "app", check=False)
    if made.ok:
        host.docker("network", "rm", "app")
    return made.ok


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DOCKER_FLANNEL_NETWORK", "here", "--network 'here' is no IPv4 prefix like 10.2.0.0/16"),
        ("FLANNELD_ETCD_ENDPOINTS", "ftp://x", "'ftp://x' is not a URL like http://192.0.2.1:2379"),
        ("DOCKER_FLANNEL_LOG_LEVEL", "loud", "--log-level 'loud' is none of debug, info"),
        ("DOCKER_FLANNEL_SOCKET", "flannel.sock", f"meanwhile {PLUGIN_SOCKET} is served"),
        ("DOCKER_FLANNEL_SOCKET", "/proc/x.sock", f"meanwhile {PLUGIN_SOCKET} is served"),
        ("DOCKER_FLANNEL_SOCKET", f"/run/{'x' * 120}", "--socket '/run/xxx"),
        ("DOCKER_FLANNEL_SOCKET", f"/etc/passwd,{PLUGIN_SOCKET}", "--socket '/etc/passwd' cannot"),
    ],
)
def test_a_bad_setting(host: Host, name: str, value: str, words: str) -> None:
    start(host, words, **{name: value})
    told(host, "restart docker-flannel")


@contextmanager
def read_only(host: Host) -> Iterator[Path]:
    """Have a state folder where nobody can write; afterwards one can."""
    folder = Path("/run/state")
    host.run("mkdir", "-p", folder)
    host.run("mount", "-t", "tmpfs", "-o", "ro", "state", folder)
    yield folder
    host.run("mount", "-o", "remount,rw", folder)


@contextmanager
def not_a_folder(host: Host) -> Iterator[Path]:
    """Have a file where the state folder shall be, until the end."""
    file = host.folder / "plain"
    file.write_text("")
    yield file / "state"
    file.unlink()


@contextmanager
def not_sqlite(host: Host) -> Iterator[Path]:
    """Have something else in place of the state, until the end."""
    folder = host.folder / "torn"
    folder.mkdir(exist_ok=True)
    (folder / "state.db").write_text("no database" * 1000)
    yield folder
    (folder / "state.db").unlink()


@pytest.mark.parametrize("broken", [read_only, not_a_folder, not_sqlite])
def test_a_bad_state_folder_and_its_repair(
    host: Host, broken: Callable[[Host], AbstractContextManager[Path]]
) -> None:
    with broken(host) as folder:
        start(host, "state f", DOCKER_FLANNEL_STATE_DIR=str(folder))
        told(host, str(folder))
    wait_for(lambda: serves(host), "the plugin to work without a restart")


def test_a_library_that_is_missing_and_its_return(host: Host) -> None:
    listed = host.run("sh", "-c", f"ldconfig -p | grep {LIBRARY}").stdout.split()
    library = str(Path(listed[-1]).resolve())
    host.run("mount", "--bind", "/dev/null", library)
    start(host, LIBRARY.partition(".")[0])
    host.run("umount", library)
    wait_for(lambda: serves(host), "the plugin to work without a restart")


@pytest.mark.parametrize("right", ["net_admin", "net_raw"])
def test_without_the_right_to_change_the_network(host: Host, right: str) -> None:
    bounded = ("setpriv", "--bounding-set", f"-{right}", "--inh-caps", f"-{right}")
    start(host, f"it lacks CAP_{right.upper()}; start it as root", *bounded)


def test_a_second_instance_leaves_the_first_alone(host: Host) -> None:
    start(host, "--network 'here'", DOCKER_FLANNEL_NETWORK="here")
    mine = {"DOCKER_FLANNEL_STATE_DIR": str(host.state_dir)}
    other = {"DOCKER_FLANNEL_STATE_DIR": str(host.folder / "other")}
    file = host.path(PLUGIN_SOCKET)
    before = file.stat().st_ino
    for env, words in (
        (mine, "another docker-flannel works on"),
        (other, "another process serves"),
        ({**other, "DOCKER_FLANNEL_SOCKET": "bad"}, "another process serves"),
        ({**other, "DOCKER_FLANNEL_NETWORK": "bad"}, "another process serves"),
    ):
        second = host.run(*SERVE, env=env, cwd=PROJECT, check=False)
        assert second.code == 69, "systemd does not try again"
        assert words in second.stderr
        assert "Traceback" not in second.stderr
        told(host, "--network 'here'")
    assert file.stat().st_ino == before


def test_the_unit_tries_again_but_not_beside_another() -> None:
    unit = (PROJECT / "packaging/docker-flannel.service").read_text().splitlines()
    for line in ("Restart=always", "RestartPreventExitStatus=69", "StartLimitIntervalSec=0"):
        assert line in unit
