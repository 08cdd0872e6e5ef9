"""The test bed itself: it works, it sees leaks, and it leaves nothing behind."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed, CommandError, Host, WaitError, assert_no_leaks, diff, snapshot, wait_for
from tests.bed.rootfs import PROJECT

pytestmark = pytest.mark.e2e

STUB = """
import http.server, os, socketserver, subprocess
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = asked if self.path == "/Echo" else b'{"Implements": ["NetworkDriver"]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "docker"
path = "/run/docker/plugins/flannel.sock"
os.makedirs(os.path.dirname(path), exist_ok=True)
if os.path.exists(path):
    os.unlink(path)
print("state in", os.environ["DOCKER_FLANNEL_STATE_DIR"], flush=True)
subprocess.Popen(["sleep", "1000"])
socketserver.UnixStreamServer(path, Handler).serve_forever()
"""

COMPOSE = """
services:
  web:
    image: box
    command: httpd -f -p 80 -h /www
    ports: ["8081:80"]
"""

VICTIM = """
import signal, time
from tests.bed import Bed
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
bed = Bed()
host = bed.host("h1")
host.start_dockerd()
host.load_image()
host.docker("run", "-d", "--name", "long", "box", "sleep", "1000")
host.popen("sleep", "1000")
print(bed.folder, flush=True)
time.sleep(1000)
"""


class Outside:
    """What of a machine a bed could touch."""

    def __init__(self) -> None:
        self.links = sorted(Path("/sys/class/net").iterdir())
        self.run = sorted(str(path) for path in Path("/run").rglob("*"))
        self.docker = sorted(Path("/etc/docker").glob("*"))
        self.settings = [
            Path("/proc/sys", name).read_text()
            for name in ("net/ipv4/ip_forward", "kernel/keys/root_maxkeys")
        ]


def remains(folder: Path) -> list[str]:
    """What is left of a bed: files, mounts and control groups, and processes in its nodes.

    A process in a node or a container is told by its mounts, which name the bed's folder. The
    numbers of namespaces tell nothing: they are given again at once.
    """
    found = [str(folder)] if folder.exists() else []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / name).read_bytes() for name in ("cmdline", "mountinfo")]
        except OSError:
            continue
        if any(folder.name.encode() in text for text in texts):
            found.append(f"process {process.name} {texts[0]!r}")
    mounts = [row.split()[1] for row in Path("/proc/mounts").read_text().splitlines()]
    return found + [f"group in {mount}" for mount in mounts if Path(mount, folder.name).is_dir()]


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with Bed() as made:
        yield made


@pytest.fixture(scope="module")
def hosts(bed: Bed) -> list[Host]:
    made = [bed.host("h1"), bed.host("h2")]
    for host in made:
        host.start_dockerd()
        host.load_image()
    return made


@pytest.fixture
def stub(hosts: list[Host]) -> Iterator[Host]:
    host = hosts[0]
    host.start_plugin(argv=[sys.executable, "-c", STUB])
    yield host
    host.kill_plugin()


def test_containers_run_on_both_hosts_and_reach_the_outside(bed: Bed, hosts: list[Host]) -> None:
    bed.outside.serve("hello from outside")
    for host in hosts:
        got = host.docker("run", "--rm", "box", "wget", "-qO-", "http://192.0.2.1/")
        assert got.stdout == "hello from outside"
    assert hosts[0].run("hostname").stdout == "h1\n"
    hosts[0].run("ping", "-c", "1", "-W", "10", hosts[1].address)


def test_a_client_reaches_a_published_port(bed: Bed, hosts: list[Host]) -> None:
    client = bed.client("c1")
    made = hosts[0].docker("run", "-d", "-p", "8080:80", "box", "httpd", "-f", "-h", "/www")
    url = f"http://{hosts[0].address}:8080/"
    wait_for(lambda: client.reaches(url), "the container to serve")
    assert client.fetch(url) == "box\n"
    hosts[0].docker("rm", "-f", made.stdout.strip())


def test_compose_brings_a_stack_up_and_down(hosts: list[Host], tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text(COMPOSE)
    hosts[1].compose("-f", "compose.yml", "up", "-d", cwd=tmp_path)
    url = f"http://{hosts[1].address}:8081/"
    wait_for(lambda: hosts[0].reaches(url), "the stack to serve")
    hosts[1].compose("-f", "compose.yml", "down", "-t", "0", cwd=tmp_path)
    assert hosts[1].docker("ps", "-aq").stdout == ""


def test_dockerd_stops_restarts_and_comes_back_after_sigkill(hosts: list[Host]) -> None:
    host = hosts[1]
    made = host.docker("run", "-d", "--restart", "always", "box", "sleep", "1000").stdout.strip()
    host.restart_dockerd()
    assert host.docker("inspect", "-f", "{{.State.Running}}", made).stdout == "true\n"
    host.kill_dockerd()
    host.restart_dockerd()
    wait_for(lambda: host.docker("ps", "-q").stdout, "the container to be restarted")
    host.docker("rm", "-f", made)
    assert host.stop_dockerd() == 0
    host.start_dockerd(default_address_pools=[{"base": "10.99.0.0/16", "size": 24}])
    host.docker("network", "create", "n1")
    assert "10.99." in host.docker("network", "inspect", "n1").stdout
    host.docker("network", "rm", "n1")


def test_a_failed_command_shows_itself(hosts: list[Host]) -> None:
    with pytest.raises(CommandError, match=r"h1: sh -c 'echo out; exit 3' -> 3 .*\nout"):
        hosts[0].run("sh", "-c", "echo out; exit 3")
    with pytest.raises(CommandError, match=r"stopped at its limit of 0\.5 s"):
        hosts[0].run("sh", "-c", "sleep 1000 & sleep 1000", limit_s=0.5)
    assert hosts[0].run("pgrep", "-f", "sleep 1000", check=False).stdout == ""
    assert hosts[0].run("cat", input="in").stdout == "in"
    with pytest.raises(WaitError, match="for the moon; the last answer was 0"):
        wait_for(lambda: 0, "the moon", limit_s=0)


def test_the_plugin_is_started_called_stopped_and_killed(stub: Host) -> None:
    assert stub.call("Plugin.Activate") == (200, {"Implements": ["NetworkDriver"]})
    assert stub.call("Echo", {"a": 1}) == (200, {"a": 1})
    assert f"state in {stub.state_dir}" in stub.plugin_log()
    assert len(stub.plugin_pids()) == 2
    stub.kill_plugin()
    assert stub.plugin_pids() == []
    stub.start_plugin(argv=[sys.executable, "-c", STUB])
    assert stub.stop_plugin() == -signal.SIGTERM


def test_a_plugin_that_gives_up_shows_its_log(hosts: list[Host]) -> None:
    with pytest.raises(AssertionError, match="no such luck"):
        hosts[0].start_plugin(argv=[sys.executable, "-c", "import sys; sys.exit('no such luck')"])


def test_leaks_are_found(stub: Host) -> None:
    before = snapshot(stub)
    assert diff(before, snapshot(stub)) == []
    stub.run("ip", "link", "add", "planted0", "type", "bridge")
    stub.run("ip", "link", "set", "planted0", "up")
    stub.run("ip", "addr", "add", "10.7.0.1/24", "dev", "planted0")
    stub.run("ip", "route", "add", "unreachable", "10.8.0.0/16", "table", "77")
    stub.run("ip", "rule", "add", "from", "10.7.0.9", "table", "77")
    stub.run("nft", "add", "table", "inet", "planted")
    stub.run("nft", "add", "map", "inet", "planted", "m", "{ type inet_service : verdict; }")
    stub.run("nft", "add", "element", "inet", "planted", "m", "{ 5353 : drop, 53 : accept }")
    stub.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.7.0.0/24", "-j", "MASQUERADE")
    container = stub.docker("create", "box").stdout.strip()
    store = sqlite3.connect(stub.state_dir / "state.db")
    store.executescript(
        "PRAGMA journal_mode = WAL; CREATE TABLE record (kind, id, body);"
        "INSERT INTO record VALUES ('network', 'abc', '{}');"
    )
    lines = diff(before, snapshot(stub))
    for expected in (
        "+ link: planted0 bridge mtu 1500 up",
        "+ address: 10.7.0.1/24 on planted0",
        "+ route: type unreachable dst 10.8.0.0/16 table 77",
        '+ rule: 4 {"priority": 32765, "src": "10.7.0.9", "table": "77"}',
        "+ nft: table inet planted",
        "+ nft: element inet planted m [5353,",
        "+ iptables: iptables-nft nat -A POSTROUTING -s 10.7.0.0/24 -j MASQUERADE",
        f"+ docker: container {container}",
        "+ row: network/abc {}",
    ):
        assert any(line.startswith(expected) for line in lines), (expected, lines)
    assert not any(
        line.startswith("+ row") for line in diff(before, snapshot(stub), ["row: network/*"])
    )
    with pytest.raises(AssertionError, match="planted0"):
        assert_no_leaks(stub, before, limit_s=0)
    store.execute("DELETE FROM record")
    store.commit()
    store.close()
    stub.docker("rm", container)
    stub.run("iptables", "-t", "nat", "-D", "POSTROUTING", "-s", "10.7.0.0/24", "-j", "MASQUERADE")
    stub.run("nft", "delete", "table", "inet", "planted")
    stub.run("ip", "rule", "del", "from", "10.7.0.9", "table", "77")
    stub.run("ip", "route", "flush", "table", "77")
    stub.run("ip", "link", "del", "planted0")
    assert_no_leaks(stub, before)


def test_reboot_forgets_what_a_reboot_forgets(bed: Bed) -> None:
    host = bed.host("h3")
    host.start_dockerd()
    host.load_image()
    boot_id = host.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    host.run("ip", "link", "add", "planted0", "type", "bridge")
    host.run("touch", "/run/planted", "/etc/planted")
    host.popen("sleep", "1000")
    host.docker("run", "-d", "--restart", "always", "box", "sleep", "1000")
    host.reboot()
    assert host.run("cat", "/proc/sys/kernel/random/boot_id").stdout != boot_id
    assert not host.run("ls", "/run/planted", "/etc/planted", check=False).stdout
    assert not host.run("ip", "link", "show", "planted0", check=False).ok
    assert not host.run("pgrep", "sleep", check=False).ok
    host.start_dockerd()
    wait_for(lambda: host.docker("ps", "-q").stdout, "the container to be restarted")
    host.run("ping", "-c", "1", "-W", "10", "192.0.2.1")
    host.cable(up=False)
    assert not host.run("ping", "-c", "1", "-W", "1", "192.0.2.1", check=False).ok
    host.cable(up=True)
    host.run("ping", "-c", "1", "-W", "10", "192.0.2.1")
    host.power_off()


def test_nothing_is_left_and_nothing_outside_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BED_LOGS", str(tmp_path))
    before = vars(Outside())
    with Bed() as bed:
        host = bed.host("h1")
        host.start_dockerd()
        host.load_image()
        host.docker("run", "-d", "box", "sleep", "1000")
        assert host.dockerd is not None
        assert bed.folder.name in Path(f"/proc/{host.dockerd.pid}/cgroup").read_text()
        # two nodes with unshare, dockerd, containerd, shim, container, warden
        assert sum(line.startswith("process") for line in remains(bed.folder)) > 8
        assert sum(line.startswith("group") for line in remains(bed.folder)) > 0
    assert remains(bed.folder) == []
    assert "API listen" in (tmp_path / bed.folder.name / "h1" / "dockerd.log").read_text()
    wait_for(lambda: vars(Outside()) == before, "the outside to be as it was")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_is_killed(number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as victim:
        assert victim.stdout is not None
        line = victim.stdout.readline()
        assert line, "the victim did not get as far as that"
        folder = Path(line.strip())
        assert remains(folder)
        os.killpg(victim.pid, number)
    wait_for(lambda: not remains(folder), f"{folder} to vanish")
