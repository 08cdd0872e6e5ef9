"""Hosts of the bed around an etcd that can fail, and what is asked of them meanwhile."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

from tests.bed import Bed, Host, Node, Process, Result, wait_for
from tests.bed.host import PLUGIN_SOCKET
from tests.bed.unixhttp import request
from tests.e2e.etcd_bed import START_S, undecided
from tests.e2e.helpers import FLANNEL, enter, network, web
from tests.e2e.leaving import tidy
from tests.unit.etcd_member import CONFIG_KEY, FOLDER

CONFIG = '{"Network": "10.2.0.0/16", "Backend": {"Type": "vxlan"}}'
SLOWEST_MS = 2000
PING_COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")
FRESH = count(1)


class Store:
    """An etcd in one machine of the bed; its members can be killed and started on their data."""

    def __init__(
        self, node: Node, members: int = 1, port: int = 2379, options: Sequence[str] = ()
    ) -> None:
        self.node, self.ports, self.options = node, [port + 10 * n for n in range(members)], options
        self.login: tuple[str, ...] = ()  # of etcdctl
        self.folder = node.folder / f"etcd-{port}"
        self._running: dict[int, Process] = {}

    @property
    def urls(self) -> str:
        return ",".join(map(self.url, self.ports))

    def url(self, port: int) -> str:
        scheme = "https" if "--cert-file" in self.options else "http"
        return f"{scheme}://{self.node.address}:{port}"

    def start(self) -> None:
        """Start the members that do not run, and wait until all serve."""
        peers = ",".join(f"m{port}=http://127.0.0.1:{port + 1}" for port in self.ports)
        for port in self.ports:
            if port in self._running:
                continue
            self.folder.mkdir(exist_ok=True)
            url, peer = self.url(port), f"http://127.0.0.1:{port + 1}"
            self._running[port] = self.node.popen(
                "etcd", "--name", f"m{port}", "--data-dir", self.folder / f"m{port}",
                "--listen-client-urls", url, "--advertise-client-urls", url,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", peers, "--unsafe-no-fsync", *self.options,
                log_name=f"etcd-{port}",
            )  # fmt: skip
        wait_for(lambda: self.ask("endpoint", "health").ok, "etcd", START_S)

    def kill(self, *ports: int) -> None:
        """Kill these members, or all."""
        for port in ports or self.ports:
            if port in self._running:
                self._running.pop(port).kill()

    def ask(self, *argv: str) -> Result:
        alive = ",".join(map(self.url, self._running))
        return self.node.run(
            "etcdctl", "--endpoints", alive, *self.login, *argv,
            env={"ETCDCTL_API": "3"}, check=False,
        )  # fmt: skip

    def ctl(self, *argv: str) -> str:
        """Run etcdctl on the members that run, once they agree."""

        def settled() -> Result | None:
            asked = self.ask(*argv)
            return None if not asked.ok and undecided(asked.stderr) else asked

        result = wait_for(settled, f"etcdctl {' '.join(argv)}", START_S)
        assert result
        assert result.ok, f"{result}\n{result.stdout}{result.stderr}"
        return result.stdout

    def put(self, key: str, value: str) -> None:
        self.ctl("put", key, value)

    def values(self) -> dict[str, str]:
        """Return the leases in etcd by the last part of their keys."""
        lines = self.ctl("get", "--prefix", FOLDER).splitlines()
        return {k.rpartition("/")[2]: v for k, v in zip(lines[::2], lines[1::2], strict=True)}

    def peers_of(self, host: Host) -> dict[str, str]:
        """Return the public IP of each other subnet, as `peers` should give it."""
        found = {k.replace("-", "/"): json.loads(v)["PublicIP"] for k, v in self.values().items()}
        return {subnet: ip for subnet, ip in found.items() if ip != host.address}

    def compact(self) -> None:
        header = json.loads(self.ctl("get", "x", "-w", "json"))["header"]
        self.ctl("compact", "--physical", str(header["revision"]))

    def leader(self) -> int:
        """Return the port of the leader."""
        for found in json.loads(self.ctl("endpoint", "status", "-w", "json")):
            if found["Status"]["leader"] == found["Status"]["header"]["member_id"]:
                return int(found["Endpoint"].rpartition(":")[2])
        raise AssertionError("etcd has no leader")


def lease(host_number: int, **others: Any) -> str:
    """Word a lease as a flanneld on 192.0.2.`host_number` would."""
    data = {"VNI": 1, "VtepMAC": f"02:00:00:00:00:{host_number:02x}"}
    fields = {"PublicIP": f"192.0.2.{host_number}", "PublicIPv6": None, "BackendType": "vxlan"}
    return json.dumps({**fields, "BackendData": data, **others})


# --- what a host says and has ---


def status(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request(host.path(PLUGIN_SOCKET), "GET", "/status")[1])
    return found


def phase(host: Host) -> str:
    return str(status(host)["phase"])


def subnet(host: Host) -> str:
    """Return the subnet the host has, "" while it has none."""
    found = status(host)["lease"]
    return str(found["subnet"]) if found else ""


def key(host: Host) -> str:
    return FOLDER + subnet(host).replace("/", "-")


def problems(host: Host) -> str:
    return "\n".join(status(host)["problems"])


def told(host: Host, *words: str) -> None:
    """Wait until the status has all these words among its problems."""

    def all_said() -> bool:
        text = problems(host)
        return all(word in text for word in words)

    wait_for(all_said, f"{words} in the status of {host.name}", 30)


def well(host: Host) -> None:
    """Wait until there are no problems."""
    wait_for(lambda: not status(host)["problems"], f"{host.name} to be well: {problems(host)}", 30)


def peers(host: Host) -> dict[str, str]:
    """Return where the kernel sends packets to each subnet, by route, neighbour and FDB entry."""

    def shown(*argv: str) -> list[dict[str, Any]]:
        result = host.run(*argv, "dev", "flannel.1", check=False)
        found: list[dict[str, Any]] = json.loads(result.stdout or "[]") if result.ok else []
        return found

    macs = {n["dst"]: n.get("lladdr", "") for n in shown("ip", "-j", "neigh", "show")}
    homes = {f["mac"]: f.get("dst", "") for f in shown("bridge", "-j", "fdb", "show")}
    routes = shown("ip", "-j", "route", "show")
    return {r["dst"]: homes.get(macs.get(r.get("gateway", ""), ""), "") for r in routes}


def has_peers(host: Host, expected: dict[str, str]) -> None:
    wait_for(lambda: peers(host) == expected, f"{host.name} to have the peers {expected}", 40, 0.2)


def quick(host: Host) -> None:
    """Check that no call of Docker's took long."""
    calls = re.findall(r"call=(\S+) ms=([\d.]+)", host.plugin_log())
    assert calls
    assert not [(name, ms) for name, ms in calls if float(ms) >= SLOWEST_MS]


def refused_network(host: Host) -> Result:
    result = host.docker("network", "create", *FLANNEL, "unwanted", check=False)
    assert not result.ok
    return result


def no_lease_yet(host: Host) -> None:
    """Check that Docker gets an answer, which says that there is no lease."""
    assert host.call("Plugin.Activate")[0] == 200
    assert "this host has no flannel lease yet" in refused_network(host).stderr


def everyday(host: Host, visitor: Node, name: str = "daily") -> None:
    """Have a host do what it does every day; `visitor` asks a published port."""
    url = f"http://{host.address}:8080/"
    network(host, name)
    web(host, f"{name}-web", name, "-p", "8080:80")
    wait_for(lambda: visitor.reaches(url), "the port", 20)
    host.docker("stop", "-t", "0", f"{name}-web")
    host.docker("start", f"{name}-web")
    wait_for(lambda: visitor.reaches(url), "the port after start", 20)
    host.docker("restart", "-t", "0", f"{name}-web")
    wait_for(lambda: visitor.reaches(url), "the port after restart", 20)
    host.docker("rm", "-f", f"{name}-web")
    host.docker("network", "rm", name)


class Traffic:
    """Pings from a container, or from the host itself, from now on."""

    def __init__(self, host: Host, container: str, target: str, every_s: str = "0.2") -> None:
        name = f"ping-{next(FRESH)}"
        command = ("ping", "-i", every_s, target)
        into = enter(host, container) if container else ()
        self._process = host.popen(*into, *command, log_name=name)

    def end(self, may_lose: int = 1) -> None:
        """Stop, and check that all but so many were answered; one may be under way."""
        self._process.signal(signal.SIGINT)
        self._process.wait()
        found = PING_COUNTS.search(self._process.log())
        assert found, self._process.log()[-300:]
        sent, came = map(int, found.groups())
        assert sent > 2
        assert sent - came <= may_lose, f"{sent - came} of {sent} pings were lost"


# --- the whole ---


@dataclass
class World:
    """Two hosts with Docker, an etcd, and a way to start all anew."""

    bed: Bed
    store: Store
    visitor: Node
    hosts: list[Host]

    @classmethod
    def build(cls, bed: Bed, members: int) -> World:
        store = Store(bed.client("etcd"), members)
        world = cls(bed, store, bed.client("visitor"), [bed.host("h1"), bed.host("h2")])
        for host in world.hosts:
            world.start_plugin(host)  # dockerd looks for it once
            host.start_dockerd()
            host.load_image()
        return world

    def start_plugin(self, host: Host, **env: str) -> None:
        """Start the plugin, or start it anew with other settings."""
        if host.plugin is not None and host.plugin.running():
            host.kill_plugin()
        usual = {"DOCKER_FLANNEL_LOG_LEVEL": "debug", "FLANNELD_ETCD_ENDPOINTS": self.store.urls}
        host.start_plugin({**usual, **env})

    def start_fresh(self, host: Host, **env: str) -> None:
        """Start the plugin as on a host that never had a lease."""
        folder = str(host.folder / f"fresh-{next(FRESH)}")
        self.start_plugin(host, DOCKER_FLANNEL_STATE_DIR=folder, **env)

    @contextmanager
    def fresh(self) -> Iterator[Self]:
        """Begin with a network config and two hosts that know each other; end without networks."""
        self.store.start()
        self.store.ctl("del", "--prefix", "/")
        self.store.put(CONFIG_KEY, CONFIG)
        for host in self.hosts:
            self.start_plugin(host)
        self.meet(*self.hosts)
        yield self
        self.store.start()
        for host in self.hosts:
            tidy(host)
            assert not status(host)["networks"]
            quick(host)

    def meet(self, *hosts: Host) -> None:
        """Wait until hosts have leases, and each the others as peers and nobody else."""
        for host in hosts:
            wait_for(lambda: subnet(host) and not problems(host), f"a lease of {host.name}", 30)
        for host in hosts:
            has_peers(host, {subnet(h): h.address for h in hosts if h is not host})

    def talk(self) -> Traffic:
        """Make a network and a container `web1`, `web2` on each host; have one ping the other."""
        ips = []
        for n, host in enumerate(self.hosts, 1):
            network(host, "app")
            ips.append(web(host, f"web{n}", "app"))
        return Traffic(self.hosts[0], "web1", ips[1])
