"""The bed itself: a folder, a LAN, the machines on it, and a warden that removes all of it."""

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bed import cgroups, commands
from tests.bed.host import Host
from tests.bed.node import Node

_BRIDGE = "lan"
_LONGEST_NAME = 12  # of a node; a link's name has at most 15 characters


class Lan:
    """An Ethernet: a bridge in a node of its own, which is also the way outside, 192.0.2.1."""

    gateway = "192.0.2.1"

    def __init__(self, node: Node, mtu: int) -> None:
        """Build the bridge in a started node; `mtu` in bytes."""
        self._node = node
        self._mtu = mtu
        node.address = self.gateway
        node.run("ip", "link", "add", _BRIDGE, "mtu", str(mtu), "type", "bridge")
        node.run("ip", "addr", "add", f"{self.gateway}/24", "dev", _BRIDGE)
        node.run("ip", "link", "set", _BRIDGE, "up")

    def attach(self, node: Node) -> None:
        """Give a started node `eth0` with its address and a default route."""
        port, mtu = f"to-{node.name}", ["mtu", str(self._mtu)]
        self._node.run("ip", "link", "del", port, check=False)
        # from outside the PID namespaces, since `ip` names the other end's by a process id
        make = ["ip", "link", "add", port, *mtu, "type", "veth", "peer", "name", "eth0", *mtu]
        call = commands.Call(
            "outside",
            ("nsenter", "-t", str(self._node.pid), "-n", "--"),
            (*make, "netns", str(node.pid)),
            dict(os.environ),
        )
        result, late = commands.run(call, 60)
        if late or not result.ok:
            raise commands.CommandError(result)
        self._node.run("ip", "link", "set", port, "master", _BRIDGE, "up")
        node.run("ip", "addr", "add", f"{node.address}/24", "dev", "eth0")
        node.run("ip", "link", "set", "eth0", "up")
        node.run("ip", "route", "add", "default", "via", self.gateway)

    def tap(self, name: str) -> str:
        """Plug in a tap device for a program that runs in the LAN's node; return its name."""
        port = f"to-{name}"
        self._node.run("ip", "tuntap", "add", port, "mode", "tap")
        self._node.run("ip", "link", "set", port, "mtu", str(self._mtu), "master", _BRIDGE, "up")
        return port

    def carrier(self, name: str, up: bool) -> None:
        """Plug the cable of a node, or of a tap, in or pull it."""
        self._node.run("ip", "link", "set", f"to-{name}", "up" if up else "down")


class Bed:
    """Machines on a private LAN for the time of a `with` block.

    `outside` is the node that carries the LAN and the machines' default gateway. Nothing outlives
    the process that made the bed, even when that is killed. With BED_LOGS set to a folder, the
    log files are copied there before the bed's own folder goes. With DOCKER_ROOT set to a root
    directory (tools/docker-root makes some), hosts boot from that and run its Docker.
    """

    def __init__(self, mtu: int = 1500) -> None:
        """Make folder, warden and LAN; `mtu` of the LAN in bytes."""
        self.folder = Path(tempfile.mkdtemp(prefix="flannel-bed-"))
        self.nodes: dict[str, Node] = {}
        self._host_numbers = itertools.count(11)
        self._client_numbers = itertools.count(201)
        self._warden = self._start_warden()
        try:
            self.outside = Node("outside", self.folder / "outside", self._adopt)
            self.nodes["outside"] = self.outside
            self.outside.boot()
            self.lan = Lan(self.outside, mtu)
        except BaseException:
            self.close()
            raise

    def _start_warden(self) -> subprocess.Popen[str]:
        script = str(Path(__file__).with_name("warden.py"))
        keep, groups = os.environ.get("BED_LOGS", ""), cgroups.tops(self.folder.name)
        return subprocess.Popen(
            [sys.executable, "-I", script, str(self.folder), keep, *map(str, groups)],
            stdin=subprocess.PIPE,
            encoding="utf-8",
            cwd="/",
            start_new_session=True,
        )

    def _adopt(self, pid: int) -> None:
        assert self._warden.stdin is not None
        self._warden.stdin.write(f"{pid}\n")
        self._warden.stdin.flush()

    def host(self, name: str) -> Host:
        """Add a machine for Docker and switch it on."""
        root = Path(os.environ.get("DOCKER_ROOT", "/"))
        host = Host(name, self.folder / name, self._adopt, root)
        self._add(host, next(self._host_numbers))
        return host

    def client(self, name: str) -> Node:
        """Add a machine without Docker and switch it on."""
        node = Node(name, self.folder / name, self._adopt)
        self._add(node, next(self._client_numbers))
        return node

    def _add(self, node: Node, number: int) -> None:
        assert len(node.name) <= _LONGEST_NAME, f"name of a node too long: {node.name}"
        node.address = f"192.0.2.{number}"
        node.wire = self.lan
        self.nodes[node.name] = node
        node.boot()

    def report(self) -> str:
        """Return the ends of all log files of the bed."""
        files = sorted(self.folder.glob("*/*.log"))
        names = {str(f.relative_to(self.folder)): f.read_text("utf-8", "replace") for f in files}
        return commands.tail(names)

    def close(self, limit_s: float = 180) -> None:
        """End all machines and remove everything; raises AssertionError if something is left."""
        assert self._warden.stdin is not None
        self._warden.stdin.close()
        code = self._warden.wait(limit_s)
        for node in self.nodes.values():
            node.reap()
        assert code == 0, f"the warden of {self.folder} ended with {code}; its message is above"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(self.report())
        self.close()
